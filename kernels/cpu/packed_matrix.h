// A weight matrix in panels of kPanel outputs (ops.h), F32 or BF16.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/thread_pool.h"

namespace catserve::cpu {

class PackedMatrix : public Matrix {
 public:
  // host: [out, in] F32, BF16 or F16, which is held as F32. Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<PackedMatrix>> Create(const TensorView& host,
                                                              ThreadPool& pool);

  int64_t out_features() const override { return out_; }
  int64_t in_features() const override { return in_; }
  int64_t bytes() const override { return buffer_->bytes(); }

  DType dtype() const { return dtype_; }
  int64_t panels() const { return (out_ + kPanel - 1) / kPanel; }
  // Lines of kPanel words.
  int64_t panel_lines() const { return dtype_ == DType::kBF16 ? Pairs(in_) : in_; }
  const void* panel(int64_t i) const {
    return static_cast<const char*>(static_cast<const HostBuffer&>(*buffer_).data()) +
           i * panel_lines() * kLineBytes;
  }

 private:
  PackedMatrix(int64_t out, int64_t in, DType dtype) : out_(out), in_(in), dtype_(dtype) {}
  void Fill(const TensorView& host, int64_t panel);
  void FillPairs(const TensorView& host, int64_t panel);

  int64_t out_;
  int64_t in_;
  DType dtype_;
  std::unique_ptr<HostBuffer> buffer_;
};

}  // namespace catserve::cpu

// A weight matrix in panels of kPanel outputs (ops.h), F32, BF16 or I8.
#pragma once

#include <cstdint>
#include <iterator>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/thread_pool.h"

namespace catserve::cpu {

class PackedMatrix : public Matrix {
 public:
  // host: [out, in] F32, BF16 or F16; as it is, F16 is held as F32. Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<PackedMatrix>> Create(const TensorView& host,
                                                              WeightFormat format,
                                                              ThreadPool& pool);

  int64_t out_features() const override { return out_; }
  int64_t in_features() const override { return in_; }
  int64_t bytes() const override {
    return buffer_->bytes() + std::ssize(scales_) * SizeOf(DType::kF32);
  }

  DType dtype() const { return dtype_; }
  int64_t panels() const { return (out_ + kPanel - 1) / kPanel; }
  const void* panel(int64_t i) const {
    return static_cast<const char*>(static_cast<const HostBuffer&>(*buffer_).data()) +
           i * in_ * kPanel * SizeOf(dtype_);
  }
  // Of the outputs of panel i and those that follow; null unless I8.
  const float* scales(int64_t i) const {
    return scales_.empty() ? nullptr : scales_.data() + i * kPanel;
  }

 private:
  PackedMatrix(int64_t out, int64_t in, DType dtype) : out_(out), in_(in), dtype_(dtype) {}
  void Fill(const TensorView& host, int64_t panel);
  void Quantize(const TensorView& host, int64_t panel);

  int64_t out_;
  int64_t in_;
  DType dtype_;
  std::unique_ptr<HostBuffer> buffer_;
  std::vector<float> scales_;  // I8: by output, filled up with zeros
};

}  // namespace catserve::cpu

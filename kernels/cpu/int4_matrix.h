// A weight matrix of 4 bits in groups (Int4Group of ops.h), and the inputs of its products.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/thread_pool.h"

namespace catserve::cpu {

class Int4Matrix : public Matrix {
 public:
  // host: [out, in] F32, BF16 or F16. Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<Int4Matrix>> Create(const TensorView& host,
                                                            ThreadPool& pool);

  int64_t out_features() const override { return out_; }
  int64_t in_features() const override { return in_; }
  int64_t bytes() const override { return buffer_->bytes(); }

  int64_t groups() const { return (in_ + kGroupInputs - 1) / kGroupInputs; }  // of a panel
  const Int4Group* panel(int64_t i) const {
    return static_cast<const Int4Group*>(static_cast<const HostBuffer&>(*buffer_).data()) +
           i * groups();
  }

 private:
  Int4Matrix(int64_t out, int64_t in) : out_(out), in_(in) {}
  int64_t panels() const { return (out_ + kPanel - 1) / kPanel; }
  void Fill(const TensorView& host, int64_t panel);

  int64_t out_;
  int64_t in_;
  std::unique_ptr<HostBuffer> buffer_;
};

// Holds the `in` numbers of one row in as many groups as the matrix has.
void HoldInputs(const Ops& ops, Int8Group* to, const float* x, int64_t in);

}  // namespace catserve::cpu

// A weight matrix of 8 bits (Int8Weights of ops.h) with a scale for each output.
#pragma once

#include <cstdint>
#include <iterator>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cpu/grouped_matrix.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/thread_pool.h"

namespace catserve::cpu {

class Int8Matrix : public GroupedMatrix<Int8Weights> {
 public:
  // host: [out, in] F32, BF16 or F16. Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<Int8Matrix>> Create(const TensorView& host,
                                                            ThreadPool& pool);

  int64_t bytes() const override {
    return GroupedMatrix::bytes() + std::ssize(scales_) * SizeOf(DType::kF32);
  }
  // Of the outputs of panel i and those that follow, filled up with zeros.
  const float* scales(int64_t i) const { return scales_.data() + i * kPanel; }

 private:
  using GroupedMatrix::GroupedMatrix;

  std::vector<float> scales_;
};

}  // namespace catserve::cpu

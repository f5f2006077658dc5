// A weight matrix of 4 bits in groups (Int4Group of ops.h).
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cpu/grouped_matrix.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/thread_pool.h"

namespace catserve::cpu {

class Int4Matrix : public GroupedMatrix<Int4Group> {
 public:
  // host: [out, in] F32, BF16 or F16. Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<Int4Matrix>> Create(const TensorView& host,
                                                            ThreadPool& pool);

 private:
  using GroupedMatrix::GroupedMatrix;
};

}  // namespace catserve::cpu

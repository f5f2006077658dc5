// Large products of matrices, by somebody else's library: cuBLASLt on a device (cublas_lt.cc), a
// plain host loop in emulation (emulator/mat_mul_library.cc).
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/cuda/runtime.h"
#include "kernels/tensor.h"

namespace catserve::cuda {

// d = a^T b, or d += a^T b, in BLAS' terms: a [k, m], b [k, n] and d [m, n] are column-major, with
// lda, ldb and ldd elements from column to column. So rows x [n, k] by weights w [m, k], both
// row-major, are b = x and a = w as they lie, and d is the row-major result [n, m].
struct Product {
  int64_t m = 0;             // out features
  int64_t n = 0;             // rows
  int64_t k = 0;             // in features
  DType type = DType::kF32;  // of a and b: F32, BF16, F16 or E4M3. Sums are F32
  const void* a = nullptr;
  int64_t lda = 0;
  const void* b = nullptr;
  int64_t ldb = 0;
  void* d = nullptr;
  int64_t ldd = 0;
  DType d_type = DType::kF32;  // or BF16 or F16, unless `add`
  // Of E4M3, on devices: of column i of a, and of column j of b. d[i, j] is a sum times both.
  const float* a_scales = nullptr;
  const float* b_scales = nullptr;
  bool add = false;
  bool operator==(const Product&) const = default;
};

// Not thread-safe.
class MatMulLibrary {
 public:
  // REQUIRES: runtime outlives it. Errors: UNAVAILABLE naming the library that is missing.
  static absl::StatusOr<std::unique_ptr<MatMulLibrary>> Create(Runtime& runtime);
  ~MatMulLibrary();
  MatMulLibrary(const MatMulLibrary&) = delete;
  MatMulLibrary& operator=(const MatMulLibrary&) = delete;

  // In order with what runtime.stream() has to do. False: the library has no way for this shape and
  // alignment, and nothing was done.
  [[nodiscard]] bool Multiply(const Product& product);

 private:
  class Impl;
  explicit MatMulLibrary(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace catserve::cuda

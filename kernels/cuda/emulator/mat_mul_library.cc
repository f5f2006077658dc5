// cuBLASLt's double: the product as BLAS defines it on columns, so that a leading dimension or a
// transposition that is wrong gives wrong numbers here too. Of E4M3 it takes what cuBLASLt does.
#include "kernels/cuda/mat_mul_library.h"

#include <utility>

#include "kernels/bfloat16.h"
#include "kernels/cuda/emulator/queue.h"
#include "kernels/float8.h"

namespace catserve::cuda {
namespace {

float Number(const void* data, DType type, int64_t at) {
  if (type == DType::kF32) return static_cast<const float*>(data)[at];
  if (type == DType::kE4M3) return FloatFromE4M3(static_cast<const uint8_t*>(data)[at]);
  const uint16_t bits = static_cast<const uint16_t*>(data)[at];
  return type == DType::kBF16 ? FloatFromBF16(bits) : FloatFromF16(bits);
}

void Run(const Product& p) {
  for (int64_t column = 0; column < p.n; ++column) {
    for (int64_t row = 0; row < p.m; ++row) {
      float sum = 0.0f;
      for (int64_t k = 0; k < p.k; ++k) {
        sum += Number(p.a, p.type, row * p.lda + k) * Number(p.b, p.type, column * p.ldb + k);
      }
      if (p.type == DType::kE4M3) sum *= p.a_scales[row] * p.b_scales[column];
      const int64_t at = column * p.ldd + row;
      if (p.d_type == DType::kF32) {
        float& d = static_cast<float*>(p.d)[at];
        d = p.add ? d + sum : sum;
      } else {
        const auto narrow = p.d_type == DType::kBF16 ? BF16FromFloat : F16FromFloat;
        static_cast<uint16_t*>(p.d)[at] = narrow(sum);
      }
    }
  }
}

// As products of E4M3 have to be: everything a multiple of 16 bytes, and of 16 outputs.
bool Aligned(const Product& p) {
  constexpr int64_t kMultiple = 16;
  return p.m % kMultiple == 0 && p.k % kMultiple == 0 && p.lda % kMultiple == 0 &&
         p.ldb % kMultiple == 0 && p.ldd * SizeOf(p.d_type) % kMultiple == 0;
}

}  // namespace

class MatMulLibrary::Impl {
 public:
  Stream stream;
};

absl::StatusOr<std::unique_ptr<MatMulLibrary>> MatMulLibrary::Create(Runtime& runtime) {
  auto impl = std::make_unique<Impl>();
  impl->stream = runtime.stream();
  return std::unique_ptr<MatMulLibrary>(new MatMulLibrary(std::move(impl)));
}

MatMulLibrary::MatMulLibrary(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MatMulLibrary::~MatMulLibrary() = default;

bool MatMulLibrary::Multiply(const Product& product) {
  if (product.type == DType::kE4M3 && !Aligned(product)) return false;
  emulator::QueueOf(impl_->stream).Add([product] { Run(product); });
  return true;
}

}  // namespace catserve::cuda

#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx2/simd.h"

namespace catserve::cpu::avx2 {
namespace {

__m256 Silu(__m256 x) {
  const __m256 negated = _mm256_xor_ps(x, _mm256_set1_ps(-0.0f));
  return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), Exp(negated)));
}

}  // namespace

void SiluGate(float* out, const float* gate, const float* up, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(out + i, _mm256_mul_ps(Silu(Load(gate + i)), Load(up + i)));
  }
  if (i < n) {
    const __m256 last = Silu(LoadFirst(gate + i, n - i));
    StoreFirst(out + i, _mm256_mul_ps(last, LoadFirst(up + i, n - i)), n - i);
  }
}

}  // namespace catserve::cpu::avx2

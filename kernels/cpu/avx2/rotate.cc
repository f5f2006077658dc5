#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx2/simd.h"

namespace catserve::cpu::avx2 {

void Rotate(float* head, const float* rotary, int64_t head_dim) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; i += 8) {
    const int64_t n = half - i < 8 ? half - i : 8;
    const __m256 u = LoadFirst(head + i, n);
    const __m256 v = LoadFirst(head + half + i, n);
    const __m256 cos = LoadFirst(rotary + i, n);
    const __m256 sin = LoadFirst(rotary + half + i, n);
    StoreFirst(head + i, _mm256_fmsub_ps(u, cos, _mm256_mul_ps(v, sin)), n);
    StoreFirst(head + half + i, _mm256_fmadd_ps(v, cos, _mm256_mul_ps(u, sin)), n);
  }
}

}  // namespace catserve::cpu::avx2

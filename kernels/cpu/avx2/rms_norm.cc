#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx2/simd.h"

namespace catserve::cpu::avx2 {

void RmsNorm(float* out, const float* x, const float* weight, int64_t n, float eps) {
  __m256 squares = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) squares = _mm256_fmadd_ps(Load(x + i), Load(x + i), squares);
  if (i < n) {
    const __m256 last = LoadFirst(x + i, n - i);
    squares = _mm256_fmadd_ps(last, last, squares);
  }
  const float mean = SumLanes(squares) / static_cast<float>(n);
  const float scale = 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean + eps)));
  const __m256 scales = _mm256_set1_ps(scale);
  for (i = 0; i + 8 <= n; i += 8) {
    const __m256 scaled = _mm256_mul_ps(Load(x + i), scales);
    _mm256_storeu_ps(out + i, _mm256_mul_ps(scaled, Load(weight + i)));
  }
  for (; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

}  // namespace catserve::cpu::avx2

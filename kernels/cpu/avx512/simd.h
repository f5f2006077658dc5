// Sixteen lanes at a time. For files compiled for AVX-512 only, by the rules of avx2/simd.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace catserve::cpu::avx512 {
namespace {

// The first n lanes; none for n <= 0, all for n >= 16.
inline __mmask16 FirstLanes(int64_t n) {
  if (n >= 16) return 0xffff;
  return static_cast<__mmask16>(n <= 0 ? 0 : (1u << n) - 1);
}

inline __m512 Load(const float* p) { return _mm512_loadu_ps(p); }

// BF16 is the upper half of F32: one shuffle puts each into its lane's upper word, zeros below.
inline __m512 Load(const uint16_t* bf16) {
  const __m512i upper =
      _mm512_setr_epi32(0, 1 << 16, 2 << 16, 3 << 16, 4 << 16, 5 << 16, 6 << 16, 7 << 16, 8 << 16,
                        9 << 16, 10 << 16, 11 << 16, 12 << 16, 13 << 16, 14 << 16, 15 << 16);
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bf16));
  return _mm512_castsi512_ps(
      _mm512_maskz_permutexvar_epi16(0xaaaaaaaau, upper, _mm512_castsi256_si512(bits)));
}

// out (+)= sum, in the lanes of `valid` alone: no other is read or written.
inline void Store(float* out, __m512 sum, __mmask16 valid, bool add) {
  if (add) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(valid, out), sum);
  _mm512_mask_storeu_ps(out, valid, sum);
}

}  // namespace
}  // namespace catserve::cpu::avx512

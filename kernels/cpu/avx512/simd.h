// Sixteen lanes at a time. For files compiled for AVX-512 only, by the rules of avx2/simd.h.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

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

inline __m512 Load(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}

// Eight numbers, in the lower lanes and in the upper ones.
inline __m512 LoadTwice(const float* p) { return _mm512_broadcast_f32x8(_mm256_loadu_ps(p)); }

inline __m512 LoadTwice(const uint16_t* bf16) {
  const __m512i upper =
      _mm512_setr_epi32(0, 1 << 16, 2 << 16, 3 << 16, 4 << 16, 5 << 16, 6 << 16, 7 << 16, 0,
                        1 << 16, 2 << 16, 3 << 16, 4 << 16, 5 << 16, 6 << 16, 7 << 16);
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bf16));
  return _mm512_castsi512_ps(
      _mm512_maskz_permutexvar_epi16(0xaaaaaaaau, upper, _mm512_castsi128_si512(bits)));
}

inline __m512 LoadTwice(const int8_t* p) {
  int64_t bytes;
  std::memcpy(&bytes, p, sizeof(bytes));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_set1_epi64x(bytes)));
}

inline __m256 Lower(__m512 a) { return _mm512_castps512_ps256(a); }
inline __m256 Upper(__m512 a) { return _mm512_extractf32x8_ps(a, 1); }

// 2^e for e from -126 to 127.
inline __m512 PowerOfTwo(__m512i e) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(e, _mm512_set1_epi32(127)), 23));
}

// Bit for bit Exp of kernels/cpu/math.h. max and min return their second operand for a NaN, as the
// comparisons of the scalar form do.
inline __m512 Exp(__m512 x) {
  const __m512 magic = _mm512_set1_ps(12582912.0f);
  x = _mm512_max_ps(_mm512_set1_ps(-104.0f), x);
  x = _mm512_min_ps(_mm512_set1_ps(89.0f), x);
  const __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(1.44269504f), magic);
  const __m512 n = _mm512_sub_ps(shifted, magic);
  __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0.693359375f), x);
  r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
  p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
  const __m512i exponent =
      _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(0x4b400000));
  const __m512i half = _mm512_srai_epi32(exponent, 1);
  p = _mm512_mul_ps(p, PowerOfTwo(half));
  return _mm512_mul_ps(p, PowerOfTwo(_mm512_sub_epi32(exponent, half)));
}

// out (+)= sum, in the lanes of `valid` alone: no other is read or written.
inline void Store(float* out, __m512 sum, __mmask16 valid, bool add) {
  if (add) sum = _mm512_add_ps(_mm512_maskz_loadu_ps(valid, out), sum);
  _mm512_mask_storeu_ps(out, valid, sum);
}

}  // namespace
}  // namespace catserve::cpu::avx512

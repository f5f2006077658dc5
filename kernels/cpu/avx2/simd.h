// Eight lanes at a time, bit for bit what kernels/cpu/math.h does one at a time.
//
// For files compiled for AVX2 only. Everything has internal linkage and nothing else with inline
// functions is included: the linker must never pick a function built here for another file.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace catserve::cpu::avx2 {
namespace {

// All ones in the first n (0 to 8) lanes.
inline __m256i FirstLanes(int64_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
}

inline __m256 Load(const float* p) { return _mm256_loadu_ps(p); }

inline __m256 WidenBF16(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

inline __m256 Load(const uint16_t* bf16) {
  return WidenBF16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bf16)));
}

// Rounded half to even; a NaN stays one.
inline __m128i NarrowBF16(__m256 value) {
  const __m256i bits = _mm256_castps_si256(value);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  const __m256i rounded = _mm256_add_epi32(bits, bias);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}

inline __m256 Load(const int8_t* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}

// The first n lanes from memory, zeros in the others; no byte beyond them is read.
inline __m256 LoadFirst(const float* p, int64_t n) { return _mm256_maskload_ps(p, FirstLanes(n)); }

inline __m128i LoadFirst16(const void* p, int64_t n) {
  uint16_t padded[8] = {};
  std::memcpy(padded, p, static_cast<size_t>(n) * 2);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(padded));
}

inline __m256 LoadFirst(const uint16_t* bf16, int64_t n) { return WidenBF16(LoadFirst16(bf16, n)); }

inline __m256 LoadFirst(const int8_t* p, int64_t n) {
  int8_t padded[8] = {};
  std::memcpy(padded, p, static_cast<size_t>(n));
  return Load(padded);
}

inline void StoreFirst(float* p, __m256 value, int64_t n) {
  _mm256_maskstore_ps(p, FirstLanes(n), value);
}

// out[i] = value[i], or out[i] += value[i] if `add`, for the first n (at least 1) of sixteen lanes.
inline void StoreOutputs(float* out, __m256 low, __m256 high, int64_t n, bool add) {
  const int64_t n_low = n < 8 ? n : 8;
  if (add) low = _mm256_add_ps(LoadFirst(out, n_low), low);
  StoreFirst(out, low, n_low);
  if (n <= 8) return;
  const int64_t n_high = n < 16 ? n - 8 : 8;
  if (add) high = _mm256_add_ps(LoadFirst(out + 8, n_high), high);
  StoreFirst(out + 8, high, n_high);
}

// Four bytes or two words from memory, in every lane.
inline __m256i Broadcast32(const void* p) {
  int32_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return _mm256_set1_epi32(bits);
}

// Keeps a sum in its register: left to itself GCC computes all products of a group before it adds
// any, and spills them.
inline void Settle(__m256i& sum) { asm("" : "+x"(sum)); }

// ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7))
inline float SumLanes(__m256 a) {
  const __m128 pairs = _mm_hadd_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 quads = _mm_hadd_ps(pairs, pairs);
  return _mm_cvtss_f32(_mm_add_ss(quads, _mm_movehdup_ps(quads)));
}

inline int32_t SumLanes(__m256i a) {
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

// Of bytes with signs.
inline int32_t SumBytes(__m256i bytes) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
  return SumLanes(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

inline float MaxLane(__m256 a) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// The largest of numbers without signs, compared by their bits, so that a NaN is larger than all.
inline float MaxMagnitude(__m256i a) {
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
  return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

// 2^e for e from -126 to 127.
inline __m256 PowerOfTwo(__m256i e) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
}

// max and min return their second operand for a NaN, as the comparisons of the scalar form do.
inline __m256 Exp(__m256 x) {
  const __m256 magic = _mm256_set1_ps(12582912.0f);
  x = _mm256_max_ps(_mm256_set1_ps(-104.0f), x);
  x = _mm256_min_ps(_mm256_set1_ps(89.0f), x);
  const __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(1.44269504f), magic);
  const __m256 n = _mm256_sub_ps(shifted, magic);
  __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-0.693359375f), x);
  r = _mm256_fmadd_ps(n, _mm256_set1_ps(2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.9875691500e-4f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
  p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
  const __m256i exponent =
      _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(0x4b400000));
  const __m256i half = _mm256_srai_epi32(exponent, 1);
  p = _mm256_mul_ps(p, PowerOfTwo(half));
  return _mm256_mul_ps(p, PowerOfTwo(_mm256_sub_epi32(exponent, half)));
}

}  // namespace
}  // namespace catserve::cpu::avx2

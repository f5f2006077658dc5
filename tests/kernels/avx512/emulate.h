// Makes a source of kernels/cpu/avx512 one that any machine with AVX2 runs: its intrinsics become
// SIMDe's emulated ones, its namespace avx512_emulated. Include it, then the source.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include <cstdint>
#include <cstring>

// What SIMDe 0.7.4 lacks, as Intel's guide to intrinsics defines it.
namespace catserve::testing::emulated {

template <typename To, typename From>
To BitCast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}
struct Floats {
  float lanes[16];
};
struct Ints {
  int32_t lanes[16];
};

inline __m512 MaskzLoad(__mmask16 mask, const float* from) {
  Floats to = {};
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) to.lanes[i] = from[i];
  }
  return BitCast<__m512>(to);
}

inline void MaskStore(float* to, __mmask16 mask, __m512 value) {
  const Floats from = BitCast<Floats>(value);
  for (int i = 0; i < 16; ++i) {
    if (mask >> i & 1) to[i] = from.lanes[i];
  }
}

inline __m512 Convert(__m512i value) {
  const Ints from = BitCast<Ints>(value);
  Floats to;
  for (int i = 0; i < 16; ++i) to.lanes[i] = static_cast<float>(from.lanes[i]);
  return BitCast<__m512>(to);
}

inline __m512i Extend(__m128i bytes) {
  int8_t from[16];
  std::memcpy(from, &bytes, sizeof(from));
  Ints to;
  for (int i = 0; i < 16; ++i) to.lanes[i] = from[i];
  return BitCast<__m512i>(to);
}

inline __m512i ShiftRight(__m512i value, unsigned by) {
  Ints to = BitCast<Ints>(value);
  for (int32_t& lane : to.lanes) lane >>= by;
  return BitCast<__m512i>(to);
}

inline __m256 Extract8(__m512 value, int index) {
  __m256 halves[2];
  std::memcpy(halves, &value, sizeof(halves));
  return halves[index];
}

inline __m512 Shuffle128(__m512 a, __m512 b, int select) {
  __m128 from[2][4], to[4];
  std::memcpy(from[0], &a, sizeof(a));
  std::memcpy(from[1], &b, sizeof(b));
  for (int i = 0; i < 4; ++i) to[i] = from[i / 2][select >> 2 * i & 3];
  return BitCast<__m512>(to);
}

}  // namespace catserve::testing::emulated

// Some of them are macros in clang's headers.
#undef _mm512_maskz_loadu_ps
#undef _mm512_mask_storeu_ps
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtepi8_epi32
#undef _mm512_srai_epi32
#undef _mm512_extractf32x8_ps
#undef _mm512_shuffle_f32x4
#define _mm512_maskz_loadu_ps ::catserve::testing::emulated::MaskzLoad
#define _mm512_mask_storeu_ps ::catserve::testing::emulated::MaskStore
#define _mm512_cvtepi32_ps ::catserve::testing::emulated::Convert
#define _mm512_cvtepi8_epi32 ::catserve::testing::emulated::Extend
#define _mm512_srai_epi32 ::catserve::testing::emulated::ShiftRight
#define _mm512_extractf32x8_ps ::catserve::testing::emulated::Extract8
#define _mm512_shuffle_f32x4 ::catserve::testing::emulated::Shuffle128

#define avx512 avx512_emulated

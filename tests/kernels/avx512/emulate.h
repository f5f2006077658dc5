// Makes a source of kernels/cpu/avx512 one that any machine with AVX2 runs: its intrinsics become
// SIMDe's emulated ones, its namespace avx512_emulated. Include it, then the source.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/bfloat16.h"

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

// A word with a number of BF16 in each half.
using Words = std::array<uint32_t, 16>;

// VDPBF16PS, where subnormal numbers count as zeros already (subnormals.h).
inline __m512 AddProducts(__m512 sums, __m512i a, __m512i b) {
  const auto upper = [](uint32_t word) { return std::bit_cast<float>(word & 0xffff0000u); };
  const auto lower = [](uint32_t word) { return std::bit_cast<float>(word << 16); };
  Floats to = BitCast<Floats>(sums);
  const Words from_a = BitCast<Words>(a), from_b = BitCast<Words>(b);
  for (size_t i = 0; i < 16; ++i) {
    to.lanes[i] = std::fma(upper(from_a[i]), upper(from_b[i]), to.lanes[i]);
    to.lanes[i] = std::fma(lower(from_a[i]), lower(from_b[i]), to.lanes[i]);
  }
  return BitCast<__m512>(to);
}

// VCVTNE2PS2BF16: the numbers of `low` in the first sixteen places.
inline __m512i Round(__m512 high, __m512 low) {
  std::array<uint16_t, 32> to;
  const Floats from[2] = {BitCast<Floats>(low), BitCast<Floats>(high)};
  for (size_t i = 0; i < 32; ++i) {
    const float x = from[i / 16].lanes[i % 16];
    const bool subnormal = std::abs(x) < std::numeric_limits<float>::min();
    to[i] = BF16FromFloat(subnormal ? std::copysign(0.0f, x) : x);
  }
  return BitCast<__m512i>(to);
}

inline __m512i Turn(__m512i value, int by) {
  Words to = BitCast<Words>(value);
  for (uint32_t& word : to) word = std::rotl(word, by);
  return BitCast<__m512i>(to);
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
#undef _mm512_rol_epi32
#undef _mm512_dpbf16_ps
#undef _mm512_cvtne2ps_pbh
#define _mm512_maskz_loadu_ps ::catserve::testing::emulated::MaskzLoad
#define _mm512_mask_storeu_ps ::catserve::testing::emulated::MaskStore
#define _mm512_cvtepi32_ps ::catserve::testing::emulated::Convert
#define _mm512_cvtepi8_epi32 ::catserve::testing::emulated::Extend
#define _mm512_srai_epi32 ::catserve::testing::emulated::ShiftRight
#define _mm512_extractf32x8_ps ::catserve::testing::emulated::Extract8
#define _mm512_shuffle_f32x4 ::catserve::testing::emulated::Shuffle128
#define _mm512_rol_epi32 ::catserve::testing::emulated::Turn
#undef __m512bh
#define __m512bh __m512i
#define _mm512_dpbf16_ps ::catserve::testing::emulated::AddProducts
#define _mm512_cvtne2ps_pbh ::catserve::testing::emulated::Round

#define avx512 avx512_emulated

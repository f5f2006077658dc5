// A group of inputs as whole numbers of 8 bits. By the rules of simd.h.
#pragma once

#include "kernels/cpu/avx2/simd.h"

namespace catserve::cpu::avx2 {
namespace {

struct Held {
  __m256i numbers;  // bytes
  float scale;
};

// The scale that KvScaleBits and FloatFromBF16 give.
inline float ScaleOf(float largest) {
  const float scale = largest / 127.0f;
  if (scale != scale) return scale;
  uint32_t bits;
  std::memcpy(&bits, &scale, sizeof(bits));
  bits = (bits + 0xffffu) & 0xffff0000u;
  float rounded;
  std::memcpy(&rounded, &bits, sizeof(rounded));
  return rounded;
}

inline Held HoldGroup(const float* x) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256 inputs[4];
  __m256i largest = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (int64_t i = 0; i < 4; ++i) {
    inputs[i] = Load(x + 8 * i);
    largest =
        _mm256_max_epi32(largest, _mm256_and_si256(_mm256_castps_si256(inputs[i]), magnitude));
  }
  const float scale = ScaleOf(MaxMagnitude(largest));
  if (!(scale > 0 && scale < __builtin_inff())) return {_mm256_setzero_si256(), scale};
  __m256i whole[4];
#pragma GCC unroll 4
  for (int64_t i = 0; i < 4; ++i) {
    whole[i] = _mm256_cvtps_epi32(_mm256_div_ps(inputs[i], _mm256_set1_ps(scale)));
  }
  // Packing works on each half of a register: quads of inputs come out of order.
  const __m256i words[2] = {_mm256_packs_epi32(whole[0], whole[1]),
                            _mm256_packs_epi32(whole[2], whole[3])};
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return {_mm256_permutevar8x32_epi32(_mm256_packs_epi16(words[0], words[1]), order), scale};
}

}  // namespace
}  // namespace catserve::cpu::avx2

// What sampling and scoring share: the arithmetic of kernels/sampling.h, bit for bit.
#pragma once

#include "kernels/cuda/device.h"

namespace catserve::cuda {

inline constexpr float kLogitMax = 3.402823466e38f;

// Step 1: NaN and -inf become the lowest finite number, +inf the largest.
__device__ inline float CleanLogit(float x) {
  const float raised = x > -kLogitMax ? x : -kLogitMax;  // NaN compares false
  return raised < kLogitMax ? raised : kLogitMax;
}

// Ids by likelihood: a larger rank is likelier; among equals the lower id. Zeros of both signs are
// equal. 32 bits of the logit, then kIdBits of the id, of which there are at most 2^kIdBits.
inline constexpr int kIdBits = 23;
inline constexpr int kRankBits = 32 + kIdBits;
__device__ inline uint64_t Rank(float z, int id) {
  const float number = z == 0.0f ? 0.0f : z;
  uint32_t bits;
  memcpy(&bits, &number, sizeof(bits));
  const uint32_t key = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  const uint32_t id_mask = (1u << kIdBits) - 1;
  return static_cast<uint64_t>(key) << kIdBits | (id_mask - static_cast<uint32_t>(id));
}
__device__ inline int IdOf(uint64_t rank) {
  const uint32_t id_mask = (1u << kIdBits) - 1;
  return static_cast<int>(id_mask - (static_cast<uint32_t>(rank) & id_mask));
}

// 2^40 * 2^y for y <= 0: SampleWeight of kernels/sampling.h, which explains the constants.
__device__ inline uint64_t Weight(float y) {
  if (!(y > -40.0f)) return 0;
  const float shifted = y + 12582912.0f;
  const float f = y - (shifted - 12582912.0f);
  int32_t n;
  memcpy(&n, &shifted, sizeof(n));
  n -= 0x4b400000;
  float p = 1.535336188319500e-4f;
  p = fmaf(p, f, 1.339887440266574e-3f);
  p = fmaf(p, f, 9.618437357674640e-3f);
  p = fmaf(p, f, 5.550332471162809e-2f);
  p = fmaf(p, f, 2.402264791363012e-1f);
  p = fmaf(p, f, 6.931472028550421e-1f);
  p = fmaf(p, f, 1.0f);
  return static_cast<uint64_t>(p * 16777216.0f) << 16 >> -n;
}

}  // namespace catserve::cuda

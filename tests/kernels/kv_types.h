// The types of KV memory, and what becomes of a head's numbers in those of 8 bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/bfloat16.h"
#include "kernels/float8.h"
#include "kernels/kv_page.h"

namespace catserve::testing {

// Those of the types, given or all, that the backend holds.
inline std::vector<DType> HeldOf(const Backend& backend,
                                 std::vector<DType> types = {DType::kF32, DType::kBF16, DType::kI8,
                                                             DType::kE4M3}) {
  std::erase_if(types, [&](DType type) { return !backend.HoldsKv(type); });
  return types;
}

inline uint16_t ScaleBitsOf(DType dtype, std::span<const float> head) {
  float largest = 0;
  for (const float number : head) largest = std::max(largest, std::abs(number));
  return KvScaleBits(largest, KvMost(dtype));
}

inline uint8_t EightBits(DType dtype, float number, float scale) {
  if (dtype == DType::kE4M3) return E4M3FromFloat(number / scale);
  return static_cast<uint8_t>(static_cast<int8_t>(std::nearbyint(number / scale)));
}

inline float FromEightBits(DType dtype, uint8_t bits, float scale) {
  const float number = dtype == DType::kE4M3 ? FloatFromE4M3(bits) : static_cast<int8_t>(bits);
  return number * scale;
}

// What is read of a head's numbers that were stored.
inline std::vector<float> AsStored(DType dtype, std::span<const float> head) {
  std::vector<float> stored(head.begin(), head.end());
  const float scale = FloatFromBF16(ScaleBitsOf(dtype, head));
  for (float& number : stored) {
    if (dtype == DType::kBF16) number = FloatFromBF16(BF16FromFloat(number));
    if (SizeOf(dtype) == 1) number = FromEightBits(dtype, EightBits(dtype, number, scale), scale);
  }
  return stored;
}

}  // namespace catserve::testing

// Conversion between F32 and the 8-bit float format E4M3 (OCP 8-bit floating point, "FN": no
// infinity, largest value 448, NaN is 0x7f), given as its bits.
#pragma once

#include <bit>
#include <cstdint>

namespace catserve {

inline constexpr float kE4M3Max = 448.0f;

constexpr float FloatFromE4M3(uint8_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80u) << 24;
  const uint32_t exponent = bits >> 3 & 0xfu;
  const uint32_t mantissa = bits & 7u;
  if (exponent == 0xf && mantissa == 7) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-9, exact in F32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-9f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  return std::bit_cast<float>(sign | (exponent + 120) << 23 | mantissa << 20);
}

// Rounds to nearest, ties to even; what is larger than 448, infinity too, becomes 448 ("satfinite"
// of CUDA's conversion).
constexpr uint8_t E4M3FromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint8_t>(bits >> 24 & 0x80u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7fu;
  if (magnitude >= 0x43e00000u) return sign | 0x7eu;  // 448 or more
  if (magnitude < 0x3c800000u) {                      // below 2^-6: subnormal
    // Adding 2^14 aligns the value so that F32's own rounding drops what E4M3 cannot hold.
    const float aligned = std::bit_cast<float>(magnitude) + 0x1p14f;
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(aligned) - 0x46800000u));
  }
  const uint32_t rounded = magnitude + 0x7ffffu + (magnitude >> 20 & 1u);
  return static_cast<uint8_t>(sign | ((rounded >> 20) - (120u << 3)));
}

}  // namespace catserve

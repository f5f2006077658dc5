// The arithmetic that both forms of the CPU backend share bit for bit. Every step is an F32 (or
// double) operation with one rounding; what is fused is written as fma.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/bfloat16.h"
#include "kernels/tensor.h"

namespace catserve::cpu {

// Sums across a row keep kLanes partial sums: element i goes to lane i % kLanes, in ascending
// order, the last group filled up with zeros. SumLanes then adds the lanes as a fixed tree.
inline constexpr int64_t kLanes = 8;

template <typename T>
T SumLanes(const T (&a)[kLanes]) {
  return ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]));
}

constexpr int64_t RoundUp(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// e^x within 2 ulp over all of F32, subnormal results included; e^-inf = 0, NaN stays NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2, e^r by the polynomial of Cephes expf, scaled by 2^n in two
// steps so that neither overflows early.
inline float Exp(float x) {
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float shifted = std::fma(x, 1.44269504f, 12582912.0f);  // 1.5 * 2^23: rounds to integer
  const float n = shifted - 12582912.0f;
  float r = std::fma(n, -0.693359375f, x);
  r = std::fma(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = std::fma(p, r, 1.3981999507e-3f);
  p = std::fma(p, r, 8.3334519073e-3f);
  p = std::fma(p, r, 4.1665795894e-2f);
  p = std::fma(p, r, 1.6666665459e-1f);
  p = std::fma(p, r, 5.0000001201e-1f);
  p = std::fma(p, r * r, r) + 1.0f;
  const int32_t exponent = static_cast<int32_t>(std::bit_cast<uint32_t>(shifted) - 0x4b400000u);
  const int32_t half = exponent >> 1;
  const auto power = [](int32_t e) {
    return std::bit_cast<float>((static_cast<uint32_t>(e) + 127u) << 23);
  };
  return p * power(half) * power(exponent - half);
}

inline float Silu(float x) { return x / (1.0f + Exp(-x)); }

// Element i of an array of any float type, or of whole numbers, as F32.
inline float LoadFloat(const void* data, DType dtype, int64_t i) {
  if (dtype == DType::kF32) return static_cast<const float*>(data)[i];
  if (dtype == DType::kI8) return static_cast<const int8_t*>(data)[i];
  const uint16_t bits = static_cast<const uint16_t*>(data)[i];
  return dtype == DType::kBF16 ? FloatFromBF16(bits) : FloatFromF16(bits);
}

}  // namespace catserve::cpu

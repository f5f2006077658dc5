// What is left of numbers that are held as whole numbers, by the rules of kernels/backend.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/bfloat16.h"
#include "kernels/kv_page.h"

namespace catserve::testing {

// `count` weights of a group of WeightFormat::kInt4.
inline std::vector<double> AsInt4(const float* w, int64_t count) {
  const auto [low, high] = std::minmax_element(w, w + count);
  const float minimum = FloatFromBF16(BF16FromFloat(*low));
  const float scale = FloatFromBF16(KvScaleBits(*high - minimum, 15));
  std::vector<double> held;
  for (int64_t k = 0; k < count; ++k) {
    const float whole = std::nearbyint((w[k] - minimum) / scale);
    held.push_back(double{std::clamp(whole, 0.0f, 15.0f)} * scale + minimum);
  }
  return held;
}

inline float LargestMagnitude(const float* x, int64_t count) {
  float largest = 0;
  for (int64_t k = 0; k < count; ++k) largest = std::max(largest, std::abs(x[k]));
  return largest;
}

// The weights of one output of WeightFormat::kInt8.
inline std::vector<double> AsInt8Weights(const float* w, int64_t count) {
  const float scale = LargestMagnitude(w, count) / 127;
  std::vector<double> held;
  for (int64_t k = 0; k < count; ++k) held.push_back(double{std::nearbyint(w[k] / scale)} * scale);
  return held;
}

// The scale of a group of inputs held with 8 bits.
inline float InputScale(const float* x, int64_t count) {
  return FloatFromBF16(KvScaleBits(LargestMagnitude(x, count), 127));
}

// One row of inputs, held in groups of 32.
inline std::vector<double> AsInt8Inputs(const float* x, int64_t count) {
  std::vector<double> held;
  for (int64_t k = 0; k < count; ++k) {
    const int64_t group = k / 32 * 32;
    const float scale = InputScale(x + group, std::min<int64_t>(32, count - group));
    held.push_back(double{std::nearbyint(x[k] / scale)} * scale);
  }
  return held;
}

}  // namespace catserve::testing

// How weights are held with 8 bits, in every engine: the rule of WeightFormat::kInt8.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace catserve {

inline constexpr float kInt8WeightMost = 127;

// The scale of one output's weights, weight(k) for k from 0 to in - 1. NaN if one of them is not
// finite: that makes the output no number, as it would be in floats.
template <typename Weight>
float Int8WeightScale(int64_t in, const Weight& weight) {
  float largest = 0;
  for (int64_t k = 0; k < in; ++k) {
    const float magnitude = std::abs(weight(k));
    if (!std::isfinite(magnitude)) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, magnitude);
  }
  return largest / kInt8WeightMost;
}

// The whole number that a weight is held as: 0 where the scale is 0 or NaN.
inline int8_t Int8Weight(float weight, float scale) {
  if (!(scale > 0)) return 0;
  const float whole = std::nearbyint(weight / scale);
  return static_cast<int8_t>(std::clamp(whole, -kInt8WeightMost, kInt8WeightMost));
}

}  // namespace catserve

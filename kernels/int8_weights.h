// How weights are held with 8 bits, in every engine: the rules of WeightFormat::kInt8 and kE4M3.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/float8.h"

namespace catserve {

inline constexpr float kInt8WeightMost = 127;

// The scale of one output's weights, weight(k) for k from 0 to in - 1, the largest of which is held
// as `most`. NaN if one of them is not finite: that makes the output no number, as it would be in
// floats.
template <typename Weight>
float WeightScale(int64_t in, const Weight& weight, float most) {
  float largest = 0;
  for (int64_t k = 0; k < in; ++k) {
    const float magnitude = std::abs(weight(k));
    if (!std::isfinite(magnitude)) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, magnitude);
  }
  return largest / most;
}
template <typename Weight>
float Int8WeightScale(int64_t in, const Weight& weight) {
  return WeightScale(in, weight, kInt8WeightMost);
}

// The whole number that a weight is held as: 0 where the scale is 0 or NaN.
inline int8_t Int8Weight(float weight, float scale) {
  if (!(scale > 0)) return 0;
  const float whole = std::nearbyint(weight / scale);
  return static_cast<int8_t>(std::clamp(whole, -kInt8WeightMost, kInt8WeightMost));
}

// The bits of E4M3 that a weight is held as: 0 where the scale is 0 or NaN.
inline uint8_t E4M3Weight(float weight, float scale) {
  return scale > 0 ? E4M3FromFloat(weight / scale) : uint8_t{0};
}

}  // namespace catserve

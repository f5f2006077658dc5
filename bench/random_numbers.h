// Random numbers for benchmarks: the same on every run, quick to make.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace catserve {

// One more of a sequence of numbers from -1 to 1.
inline float NextRandom(uint64_t& state) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<float>(state >> 40) * 0x1p-23f - 1.0f;
}

// From -scale to scale.
inline std::vector<float> RandomFloats(int64_t count, float scale) {
  std::vector<float> values(count);
  uint64_t state = 1;
  for (float& value : values) value = scale * NextRandom(state);
  return values;
}

// The bits of BF16 numbers from -scale to scale.
inline std::vector<uint16_t> RandomBF16(int64_t count, float scale) {
  std::vector<uint16_t> values(count);
  uint64_t state = 1;
  for (uint16_t& value : values) {
    value = static_cast<uint16_t>(std::bit_cast<uint32_t>(scale * NextRandom(state)) >> 16);
  }
  return values;
}

}  // namespace catserve

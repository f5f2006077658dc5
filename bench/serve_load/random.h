// A small generator with its own bits, so that a seed means the same load everywhere.
#pragma once

#include <cstdint>

namespace catserve {

// splitmix64. Not thread-safe; a plain value.
class Random {
 public:
  // `stream` sets apart draws that must not shift each other: budgets do not move arrivals.
  Random(uint64_t seed, uint64_t stream) : state_(seed * 0x9e3779b97f4a7c15u + stream) { Next(); }

  uint64_t Next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double Unit() { return static_cast<double>(Next() >> 11) * 0x1p-53; }  // [0, 1)
  // 0 <= value < bound. REQUIRES: bound > 0.
  int64_t Below(int64_t bound) { return static_cast<int64_t>(Unit() * static_cast<double>(bound)); }

 private:
  uint64_t state_;
};

}  // namespace catserve

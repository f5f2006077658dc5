// The panels that come next, fetched into the L2 cache while these are multiplied. Each tile of
// rows takes its part, so that memory is read all the time and not while the first of them runs
// alone.
//
// By the rules of simd.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace catserve::cpu::avx2 {
namespace {

// What fits the cache beside the panels that are being multiplied, and rows of inputs.
constexpr int64_t kAheadBytesMax = 256 << 10;

struct Ahead {
  const char* at = nullptr;
  int64_t step = 0;  // bytes for each of a tile's steps; 0: nothing is fetched

  void Fetch() {
    for (int64_t i = 0; i < step; i += 64) _mm_prefetch(at + i, _MM_HINT_T1);
    at += step;
  }
};

// The work of `tiles` tiles of rows, each in `steps` steps of `step_bytes` bytes of weights.
struct TileSteps {
  int64_t step_bytes;
  int64_t steps;
  int64_t tiles;
};

// The part of tile `tile` in fetching as much from `next` on. A tile alone comes at the speed of
// memory anyway.
inline Ahead AheadOf(const void* next, const TileSteps& work, int64_t tile) {
  const auto [step_bytes, steps, tiles] = work;
  if (tiles == 1 || step_bytes * steps > kAheadBytesMax) return {};
  const int64_t step = (step_bytes + tiles - 1) / tiles;
  return {static_cast<const char*>(next) + tile * steps * step, step};
}

}  // namespace
}  // namespace catserve::cpu::avx2

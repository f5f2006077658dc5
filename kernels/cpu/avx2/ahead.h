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

struct Ahead {
  const char* at = nullptr;
  int64_t step = 0;  // bytes for each of a tile's steps; 0: one tile alone comes at memory's speed

  void Fetch() {
    for (int64_t i = 0; i < step; i += 64) _mm_prefetch(at + i, _MM_HINT_T1);
    at += step;
  }
};

// For tile `tile` of `tiles`, of `steps` steps each, of which all together fetch `step_bytes` from
// `next` on for each step.
inline Ahead AheadOf(const void* next, int64_t step_bytes, int64_t steps, int64_t tile,
                     int64_t tiles) {
  const int64_t step = tiles > 1 ? (step_bytes + tiles - 1) / tiles : 0;
  return {static_cast<const char*>(next) + tile * steps * step, step};
}

}  // namespace
}  // namespace catserve::cpu::avx2

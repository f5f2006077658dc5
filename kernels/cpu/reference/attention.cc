#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/math.h"
#include "kernels/cpu/reference/functions.h"

namespace catserve::cpu::reference {
namespace {

// Calls visit(e, run, i) for logical entries e in [0, visible): entry i of the run.
template <typename Visit>
void ForEachEntry(const AttentionTile& tile, int64_t visible, Visit visit) {
  int64_t e = 0;
  for (const EntryRun* run = tile.runs; e < visible; ++run) {
    for (int64_t i = 0; i < run->count && e < visible; ++i) visit(e++, *run, i);
  }
}

// x times the scale of entry i, where entries have one.
float Scaled(float x, const uint16_t* scales, int64_t i) {
  return scales == nullptr ? x : x * FloatFromBF16(scales[i]);
}

float Dot(const AttentionTile& tile, const float* q, const void* keys, int64_t offset) {
  float lanes[kLanes] = {};
  for (int64_t d = 0; d < RoundUp(tile.head_dim, kLanes); ++d) {
    const bool inside = d < tile.head_dim;
    const float a = inside ? q[d] : 0.0f;
    const float b = inside ? LoadFloat(keys, tile.dtype, offset + d) : 0.0f;
    lanes[d % kLanes] = std::fma(a, b, lanes[d % kLanes]);
  }
  return SumLanes(lanes);
}

void AttendOne(const AttentionTile& tile, const Query& query) {
  float* p = tile.scores;
  float max = -std::numeric_limits<float>::infinity();
  ForEachEntry(tile, query.visible, [&](int64_t e, const EntryRun& run, int64_t i) {
    const float dot = Dot(tile, query.q, run.keys, i * tile.entry_stride);
    p[e] = Scaled(dot, run.key_scales, i) * tile.scale;
    max = std::max(max, p[e]);
  });
  float lanes[kLanes] = {};
  for (int64_t e = 0; e < query.visible; ++e) {
    p[e] = Exp(p[e] - max);
    lanes[e % kLanes] += p[e];
  }
  const float sum = SumLanes(lanes);
  for (int64_t d = 0; d < tile.head_dim; ++d) query.out[d] = 0.0f;
  ForEachEntry(tile, query.visible, [&](int64_t e, const EntryRun& run, int64_t i) {
    const float weight = Scaled(p[e], run.value_scales, i);
    for (int64_t d = 0; d < tile.head_dim; ++d) {
      const float v = LoadFloat(run.values, tile.dtype, i * tile.entry_stride + d);
      query.out[d] = std::fma(weight, v, query.out[d]);
    }
  });
  for (int64_t d = 0; d < tile.head_dim && query.visible > 0; ++d) query.out[d] /= sum;
}

}  // namespace

void Attend(const AttentionTile& tile) {
  for (int64_t i = 0; i < tile.query_count; ++i) AttendOne(tile, tile.queries[i]);
}

}  // namespace catserve::cpu::reference

// Attention, whatever the width of its sums: entries go through in blocks of 16 (a page); one block
// of keys serves every query of the tile, then one block of values. Rows of a block are read where
// they lie, or from a copy in F32 filled up with zeros: if eight lanes do not divide them, or if so
// many queries read BF16 or I8 that widening each element once pays.
//
// By the rules of simd.h.
#pragma once

#include "kernels/cpu/avx2/simd.h"
#include "kernels/cpu/ops.h"

namespace catserve::cpu::avx2 {
namespace {

constexpr int64_t kBlock = 16;
constexpr int64_t kHeadDimMax = 256;
constexpr int kSharing = 4;  // the most queries that share a read of a value

// Rows of F32, BF16 or I8 whose length is a multiple of 8.
template <typename T>
struct Rows {
  const T* data;
  int64_t stride;
};

struct Scratch {
  alignas(64) float rows[kBlock * kHeadDimMax];  // one block, widened
  alignas(64) float queries[kQueryTile * kHeadDimMax];
  alignas(64) float sums[kQueryTile * kHeadDimMax];
  alignas(64) float weights[kSharing][kBlock];
  int64_t width;  // head_dim rounded up to 8
};

template <typename T>
Rows<float> Widened(Scratch& s, const T* from, int64_t stride, int64_t count, int64_t head_dim) {
  for (int64_t e = 0; e < count; ++e) {
    float* to = s.rows + e * s.width;
    int64_t d = 0;
    for (; d + 8 <= head_dim; d += 8) _mm256_store_ps(to + d, Load(from + e * stride + d));
    if (d < head_dim) _mm256_store_ps(to + d, LoadFirst(from + e * stride + d, head_dim - d));
  }
  return {s.rows, s.width};
}

// Entries [first, first + count) of one part (keys or values) of a run, read as T.
template <typename T>
Rows<T> BlockRows(Scratch&, const AttentionTile& tile, const void* part, int64_t first, int64_t) {
  return {static_cast<const T*>(part) + first * tile.entry_stride, tile.entry_stride};
}

template <>
Rows<float> BlockRows(Scratch& s, const AttentionTile& tile, const void* part, int64_t first,
                      int64_t count) {
  const int64_t at = first * tile.entry_stride;
  if (tile.dtype == DType::kBF16) {
    return Widened(s, static_cast<const uint16_t*>(part) + at, tile.entry_stride, count,
                   tile.head_dim);
  }
  if (tile.dtype == DType::kI8) {
    return Widened(s, static_cast<const int8_t*>(part) + at, tile.entry_stride, count,
                   tile.head_dim);
  }
  const float* from = static_cast<const float*>(part) + at;
  if (s.width == tile.head_dim) return {from, tile.entry_stride};
  return Widened(s, from, tile.entry_stride, count, tile.head_dim);
}

// Pages lie apart, where the hardware does not look ahead. Into the L2 cache: more lines can be on
// their way to it than to L1 (measured: twice the bandwidth).
inline void Prefetch(const AttentionTile& tile, const void* part, int64_t entries) {
  const int64_t size = tile.dtype == DType::kF32 ? 4 : tile.dtype == DType::kBF16 ? 2 : 1;
  const int64_t bytes = entries * tile.entry_stride * size;
  for (int64_t i = 0; i < bytes; i += 64) {
    _mm_prefetch(static_cast<const char*>(part) + i, _MM_HINT_T1);
  }
}

struct Range {
  int64_t first;
  int64_t count;
};

// Calls visit(first logical entry, run, range in the run) for every block, the run after it on its
// way into the cache. part: which half of the runs is read.
template <typename Visit>
void ForEachBlock(const AttentionTile& tile, const void* EntryRun::*part, Visit visit) {
  int64_t base = 0;
  for (int64_t r = 0; r < tile.run_count; ++r) {
    const EntryRun& run = tile.runs[r];
    if (r + 1 < tile.run_count) Prefetch(tile, tile.runs[r + 1].*part, tile.runs[r + 1].count);
    for (int64_t first = 0; first < run.count; first += kBlock) {
      const int64_t left = run.count - first;
      visit(base + first, run, Range{first, left < kBlock ? left : kBlock});
    }
    base += run.count;
  }
}

// sums[d] = fma over entries in order of p[e] * values[e][d], for V vectors of d.
template <int V, typename T>
void Accumulate(float* sums, const float* p, Rows<T> values, int64_t count) {
  __m256 lanes[V];
#pragma GCC unroll 8
  for (int64_t i = 0; i < V; ++i) lanes[i] = _mm256_load_ps(sums + 8 * i);
  for (int64_t e = 0; e < count; ++e) {
    const __m256 weight = _mm256_broadcast_ss(p + e);
    const T* row = values.data + e * values.stride;
#pragma GCC unroll 8
    for (int64_t i = 0; i < V; ++i) {
      lanes[i] = _mm256_fmadd_ps(weight, Load(row + 8 * i), lanes[i]);
    }
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < V; ++i) _mm256_store_ps(sums + 8 * i, lanes[i]);
}

template <typename T>
void AccumulateAll(float* sums, const float* p, Rows<T> values, int64_t count, int64_t width) {
  for (; width >= 64; width -= 64, sums += 64, values.data += 64) {
    Accumulate<8>(sums, p, values, count);
  }
  for (; width >= 32; width -= 32, sums += 32, values.data += 32) {
    Accumulate<4>(sums, p, values, count);
  }
  for (; width > 0; width -= 8, sums += 8, values.data += 8) Accumulate<1>(sums, p, values, count);
}

inline void StoreOutput(const Scratch& s, const AttentionTile& tile, int64_t i, float sum) {
  const Query& query = tile.queries[i];
  const __m256 divisor = _mm256_set1_ps(query.visible > 0 ? sum : 1.0f);
  for (int64_t d = 0; d < tile.head_dim; d += 8) {
    const int64_t n = tile.head_dim - d < 8 ? tile.head_dim - d : 8;
    StoreFirst(query.out + d, _mm256_div_ps(_mm256_load_ps(s.sums + i * s.width + d), divisor), n);
  }
}

inline const uint16_t* ScalesAt(const uint16_t* scales, int64_t i) {
  return scales == nullptr ? nullptr : scales + i;
}

// p[e] times the scale of entry e of a block in `to`, where entries have one.
inline const float* Weights(float* to, const float* p, const uint16_t* scales, int64_t count) {
  if (scales == nullptr) return p;
  for (int64_t e = 0; e < count; e += 8) {
    _mm256_store_ps(to + e, _mm256_mul_ps(Load(p + e), Load(scales + e)));
  }
  return to;
}

template <typename Steps, typename T>
void AttendReading(Scratch& s, const AttentionTile& tile) {
  float sums[kQueryTile];
  Steps::template Score<T>(s, tile);
  for (int64_t i = 0; i < tile.query_count; ++i) {
    sums[i] = Steps::Softmax(tile.scores + i * ScoreStride(tile.entries), tile.queries[i].visible);
  }
  Steps::template Weigh<T>(s, tile);
  for (int64_t i = 0; i < tile.query_count; ++i) StoreOutput(s, tile, i, sums[i]);
}

// The operation, by the steps of one width:
//   kFewQueries: the most that read BF16 and I8 as they are stored
//   LoadQueries(s, tile): queries as Score wants them, and sums of zeros
//   Score<T>(s, tile): tile.scores of the entries that each query sees, keys read as T
//   Softmax(scores, visible): turns scores into e^(score - max), and returns their sum by lanes
//   Weigh<T>(s, tile): s.sums[d] = fma over entries in order of p[e] * values[e][d]
template <typename Steps>
void AttendBy(const AttentionTile& tile) {
  Scratch s;
  s.width = (tile.head_dim + 7) / 8 * 8;
  Steps::LoadQueries(s, tile);
  const bool as_stored = s.width == tile.head_dim && tile.query_count <= Steps::kFewQueries;
  if (tile.dtype == DType::kI8 && as_stored) {
    AttendReading<Steps, int8_t>(s, tile);
  } else if (tile.dtype == DType::kBF16 && as_stored) {
    AttendReading<Steps, uint16_t>(s, tile);
  } else {
    AttendReading<Steps, float>(s, tile);
  }
}

}  // namespace
}  // namespace catserve::cpu::avx2

// Entries go through in blocks of 16 (a page): one block of keys serves every query of the tile,
// then one block of values. Rows of a block are read where they lie if eight lanes divide them, and
// otherwise from a copy widened to F32 and filled up with zeros.
#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx2/simd.h"

namespace catserve::cpu::avx2 {
namespace {

constexpr int64_t kBlock = 16;
constexpr int64_t kHeadDimMax = 256;

// Rows of F32 whose length is a multiple of 8; the scratch has room for one block.
struct Rows {
  const float* data;
  int64_t stride;
};

struct Scratch {
  alignas(32) float rows[kBlock * kHeadDimMax];
  alignas(32) float queries[kQueryTile * kHeadDimMax];
  alignas(32) float sums[kQueryTile * kHeadDimMax];
  int64_t width;  // head_dim rounded up to 8
};

template <typename T>
Rows Widened(Scratch& s, const T* from, int64_t stride, int64_t count, int64_t head_dim) {
  for (int64_t e = 0; e < count; ++e) {
    float* to = s.rows + e * s.width;
    int64_t d = 0;
    for (; d + 8 <= head_dim; d += 8) _mm256_store_ps(to + d, Load(from + e * stride + d));
    if (d < head_dim) _mm256_store_ps(to + d, LoadFirst(from + e * stride + d, head_dim - d));
  }
  return {s.rows, s.width};
}

// Entries [first, first + count) of one part (keys or values) of a run.
Rows BlockRows(Scratch& s, const AttentionTile& tile, const void* part, int64_t first,
               int64_t count) {
  const int64_t at = first * tile.entry_stride;
  if (tile.dtype == DType::kBF16) {
    return Widened(s, static_cast<const uint16_t*>(part) + at, tile.entry_stride, count,
                   tile.head_dim);
  }
  const float* from = static_cast<const float*>(part) + at;
  if (s.width == tile.head_dim) return {from, tile.entry_stride};
  return Widened(s, from, tile.entry_stride, count, tile.head_dim);
}

// Eight sums by lanes at once: lane i is SumLanes(a[i]).
__m256 SumLanesOfEach(const __m256 (&a)[8]) {
  const __m256 q0 = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
  const __m256 q1 = _mm256_hadd_ps(_mm256_hadd_ps(a[4], a[5]), _mm256_hadd_ps(a[6], a[7]));
  return _mm256_add_ps(_mm256_permute2f128_ps(q0, q1, 0x20), _mm256_permute2f128_ps(q0, q1, 0x31));
}

// scores[0, 8) = (q . keys[i]) * scale; rows beyond `count` repeat the last and are ignored.
void Score8(float* scores, const float* q, Rows keys, int64_t count, int64_t width, float scale) {
  const float* rows[8];
  for (int64_t i = 0; i < 8; ++i) rows[i] = keys.data + (i < count ? i : count - 1) * keys.stride;
  __m256 sums[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) sums[i] = _mm256_setzero_ps();
  for (int64_t d = 0; d < width; d += 8) {
    const __m256 x = Load(q + d);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) sums[i] = _mm256_fmadd_ps(x, Load(rows[i] + d), sums[i]);
  }
  _mm256_storeu_ps(scores, _mm256_mul_ps(SumLanesOfEach(sums), _mm256_set1_ps(scale)));
}

// sums[d] = fma over entries in order of p[e] * values[e][d], for V vectors of d.
template <int V>
void Accumulate(float* sums, const float* p, Rows values, int64_t count) {
  __m256 lanes[V];
#pragma GCC unroll 8
  for (int i = 0; i < V; ++i) lanes[i] = _mm256_load_ps(sums + 8 * i);
  for (int64_t e = 0; e < count; ++e) {
    const __m256 weight = _mm256_broadcast_ss(p + e);
    const float* row = values.data + e * values.stride;
#pragma GCC unroll 8
    for (int i = 0; i < V; ++i) lanes[i] = _mm256_fmadd_ps(weight, Load(row + 8 * i), lanes[i]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < V; ++i) _mm256_store_ps(sums + 8 * i, lanes[i]);
}

void AccumulateAll(float* sums, const float* p, Rows values, int64_t count, int64_t width) {
  for (; width >= 64; width -= 64, sums += 64, values.data += 64) {
    Accumulate<8>(sums, p, values, count);
  }
  for (; width >= 32; width -= 32, sums += 32, values.data += 32) {
    Accumulate<4>(sums, p, values, count);
  }
  for (; width > 0; width -= 8, sums += 8, values.data += 8) Accumulate<1>(sums, p, values, count);
}

// Turns the scores of the visible entries into e^(s - max), and returns their sum by lanes.
float Softmax(float* scores, int64_t visible) {
  const float lowest = -__builtin_inff();
  const int64_t padded = (visible + 7) / 8 * 8;
  for (int64_t e = visible; e < padded; ++e) scores[e] = lowest;
  __m256 max = _mm256_set1_ps(lowest);
  for (int64_t e = 0; e < padded; e += 8) max = _mm256_max_ps(Load(scores + e), max);
  const __m256 shift = _mm256_set1_ps(MaxLane(max));
  __m256 sum = _mm256_setzero_ps();
  for (int64_t e = 0; e < padded; e += 8) {
    const __m256 p = Exp(_mm256_sub_ps(Load(scores + e), shift));
    _mm256_storeu_ps(scores + e, p);
    sum = _mm256_add_ps(sum, p);
  }
  return SumLanes(sum);
}

// Calls visit(first logical entry, run, first in the run, count) for every block.
template <typename Visit>
void ForEachBlock(const AttentionTile& tile, Visit visit) {
  int64_t base = 0;
  for (int64_t r = 0; r < tile.run_count; ++r) {
    const EntryRun& run = tile.runs[r];
    for (int64_t first = 0; first < run.count; first += kBlock) {
      visit(base + first, run, first, run.count - first < kBlock ? run.count - first : kBlock);
    }
    base += run.count;
  }
}

void LoadQueries(Scratch& s, const AttentionTile& tile) {
  for (int64_t i = 0; i < tile.query_count; ++i) {
    for (int64_t d = 0; d < s.width; d += 8) {
      const int64_t n = tile.head_dim - d < 8 ? tile.head_dim - d : 8;
      _mm256_store_ps(s.queries + i * s.width + d, LoadFirst(tile.queries[i].q + d, n));
      _mm256_store_ps(s.sums + i * s.width + d, _mm256_setzero_ps());
    }
  }
}

void StoreOutput(const Scratch& s, const AttentionTile& tile, int64_t i, float sum) {
  const Query& query = tile.queries[i];
  const __m256 divisor = _mm256_set1_ps(query.visible > 0 ? sum : 1.0f);
  for (int64_t d = 0; d < tile.head_dim; d += 8) {
    const int64_t n = tile.head_dim - d < 8 ? tile.head_dim - d : 8;
    StoreFirst(query.out + d, _mm256_div_ps(_mm256_load_ps(s.sums + i * s.width + d), divisor), n);
  }
}

}  // namespace

void Attend(const AttentionTile& tile) {
  Scratch s;
  s.width = (tile.head_dim + 7) / 8 * 8;
  LoadQueries(s, tile);
  const int64_t stride = ScoreStride(tile.entries);
  ForEachBlock(tile, [&](int64_t base, const EntryRun& run, int64_t first, int64_t count) {
    const Rows keys = BlockRows(s, tile, run.keys, first, count);
    for (int64_t i = 0; i < tile.query_count; ++i) {
      const int64_t needed = tile.queries[i].visible - base;
      for (int64_t e = 0; e < count && e < needed; e += 8) {
        Score8(tile.scores + i * stride + base + e, s.queries + i * s.width,
               {keys.data + e * keys.stride, keys.stride}, count - e, s.width, tile.scale);
      }
    }
  });
  float sums[kQueryTile];
  for (int64_t i = 0; i < tile.query_count; ++i) {
    sums[i] = Softmax(tile.scores + i * stride, tile.queries[i].visible);
  }
  ForEachBlock(tile, [&](int64_t base, const EntryRun& run, int64_t first, int64_t count) {
    const Rows values = BlockRows(s, tile, run.values, first, count);
    for (int64_t i = 0; i < tile.query_count; ++i) {
      const int64_t needed = tile.queries[i].visible - base;
      if (needed <= 0) continue;
      AccumulateAll(s.sums + i * s.width, tile.scores + i * stride + base, values,
                    needed < count ? needed : count, s.width);
    }
  });
  for (int64_t i = 0; i < tile.query_count; ++i) StoreOutput(s, tile, i, sums[i]);
}

}  // namespace catserve::cpu::avx2

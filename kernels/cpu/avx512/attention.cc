// Two queries at a time: their dot products with a key in the lower and in the upper eight lanes of
// one register, their sums over values from one read of these. A query alone is AVX2's: it waits
// for memory.
#include "kernels/cpu/avx2/attend.h"
#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx512/functions.h"
#include "kernels/cpu/avx512/simd.h"

namespace catserve::cpu::avx512 {
namespace {

using avx2::Range;
using avx2::Rows;
using avx2::Scratch;

__m512 AddPairs(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
}

// Sixteen sums by lanes at once: lane i is SumLanes of the lower lanes of a[i], lane i + 8 of the
// upper ones.
__m512 SumLanesOfEach(const __m512 (&a)[8]) {
  const __m512 q0 = AddPairs(AddPairs(a[0], a[1]), AddPairs(a[2], a[3]));
  const __m512 q1 = AddPairs(AddPairs(a[4], a[5]), AddPairs(a[6], a[7]));
  const __m512 sums =
      _mm512_add_ps(_mm512_shuffle_f32x4(q0, q1, 0x88), _mm512_shuffle_f32x4(q0, q1, 0xdd));
  return _mm512_shuffle_f32x4(sums, sums, 0xd8);  // lower, upper of 0-3, then of 4-7
}

// Queries i and i + 1; where there is no such, i again.
struct Pair {
  int64_t a;
  int64_t b;
};
Pair PairAt(const AttentionTile& tile, int64_t i) {
  return {i, i + 1 < tile.query_count ? i + 1 : i};
}

struct ScoreShape {
  int64_t width;
  float scale;
  const uint16_t* key_scales;  // of the eight, or null
};

// scores[0, 8) of both queries = (q . keys[i]) (* key scale) * scale; rows beyond `count` repeat
// the last and are ignored. queries: eight numbers of each in turn.
template <typename T>
void Score8(float* const (&scores)[2], const float* queries, Rows<T> keys, int64_t count,
            const ScoreShape& shape) {
  const T* rows[8];
  for (int64_t i = 0; i < 8; ++i) rows[i] = keys.data + (i < count ? i : count - 1) * keys.stride;
  __m512 sums[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) sums[i] = _mm512_setzero_ps();
  for (int64_t d = 0; d < shape.width; d += 8) {
    const __m512 x = Load(queries + 2 * d);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) sums[i] = _mm512_fmadd_ps(x, LoadTwice(rows[i] + d), sums[i]);
  }
  __m512 dots = SumLanesOfEach(sums);
  if (shape.key_scales != nullptr) dots = _mm512_mul_ps(dots, LoadTwice(shape.key_scales));
  dots = _mm512_mul_ps(dots, _mm512_set1_ps(shape.scale));
  _mm256_storeu_ps(scores[0], Lower(dots));
  _mm256_storeu_ps(scores[1], Upper(dots));
}

// For Q queries, sums[q][d] = fma over entries in order of p[q][e] * values[e][d], for V vectors
// from d on.
template <int Q, int V, typename T>
void Accumulate(float* const (&sums)[Q], const float* const (&p)[Q], Rows<T> values, int64_t count,
                int64_t d) {
  __m512 lanes[Q][V];
#pragma GCC unroll 2
  for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 4
    for (int i = 0; i < V; ++i) lanes[q][i] = Load(sums[q] + d + 16 * i);
  }
  for (int64_t e = 0; e < count; ++e) {
    const T* at = values.data + e * values.stride + d;
    __m512 row[V];
#pragma GCC unroll 4
    for (int i = 0; i < V; ++i) row[i] = Load(at + 16 * i);
#pragma GCC unroll 2
    for (int q = 0; q < Q; ++q) {
      const __m512 weight = _mm512_set1_ps(p[q][e]);
#pragma GCC unroll 4
      for (int i = 0; i < V; ++i) lanes[q][i] = _mm512_fmadd_ps(weight, row[i], lanes[q][i]);
    }
  }
#pragma GCC unroll 2
  for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 4
    for (int i = 0; i < V; ++i) _mm512_storeu_ps(sums[q] + d + 16 * i, lanes[q][i]);
  }
}

template <int Q, typename T>
void AccumulateAll(float* const (&sums)[Q], const float* const (&p)[Q], Rows<T> values,
                   int64_t count, int64_t width) {
  int64_t d = 0;
  for (; d + 64 <= width; d += 64) Accumulate<Q, 4>(sums, p, values, count, d);
  for (; d + 16 <= width; d += 16) Accumulate<Q, 1>(sums, p, values, count, d);
  if (d == width) return;
  const Rows<T> last = {values.data + d, values.stride};  // eight of each
  for (int q = 0; q < Q; ++q) avx2::Accumulate<1>(sums[q] + d, p[q], last, count);
}

// A block of values as a pair of queries reads it.
template <typename T>
struct ValueBlock {
  Rows<T> values;
  const uint16_t* scales;  // or null
  int64_t base;            // logical index of the first entry
  int64_t count;
};

// First the entries that both queries see, then those that only one does.
template <typename T>
void WeighPair(Scratch& s, const AttentionTile& tile, const Pair& pair,
               const ValueBlock<T>& block) {
  const int64_t queries[2] = {pair.a, pair.b};
  int64_t counts[2];
  float* sums[2];
  const float* p[2];
  for (int q = 0; q < 2; ++q) {
    const int64_t needed = tile.queries[queries[q]].visible - block.base;
    counts[q] = needed < 0 ? 0 : needed < block.count ? needed : block.count;
    sums[q] = s.sums + queries[q] * s.width;
    const float* scores = tile.scores + queries[q] * ScoreStride(tile.entries) + block.base;
    p[q] = avx2::Weights(s.weights[q], scores, block.scales, counts[q]);
  }
  if (pair.a == pair.b) counts[1] = 0;
  const int64_t both = counts[0] < counts[1] ? counts[0] : counts[1];
  if (both > 0) AccumulateAll<2>(sums, p, block.values, both, s.width);
  const Rows<T> rest = {block.values.data + both * block.values.stride, block.values.stride};
  for (int q = 0; q < 2; ++q) {
    if (counts[q] == both) continue;
    AccumulateAll<1>({sums[q]}, {p[q] + both}, rest, counts[q] - both, s.width);
  }
}

struct Steps {
  static void LoadQueries(Scratch& s, const AttentionTile& tile) {
    for (int64_t i = 0; i < tile.query_count; i += 2) {
      const Pair pair = PairAt(tile, i);
      float* to = s.queries + i * s.width;
      for (int64_t d = 0; d < s.width; d += 8, to += 16) {
        const int64_t n = tile.head_dim - d < 8 ? tile.head_dim - d : 8;
        _mm256_store_ps(to, avx2::LoadFirst(tile.queries[pair.a].q + d, n));
        _mm256_store_ps(to + 8, avx2::LoadFirst(tile.queries[pair.b].q + d, n));
      }
    }
    std::memset(s.sums, 0, static_cast<size_t>(tile.query_count * s.width) * sizeof(float));
  }

  template <typename T>
  static void Score(Scratch& s, const AttentionTile& tile) {
    const int64_t stride = ScoreStride(tile.entries);
    avx2::ForEachBlock(tile, &EntryRun::keys, [&](int64_t base, const EntryRun& run, Range range) {
      const Rows<T> keys = avx2::BlockRows<T>(s, tile, run.keys, range.first, range.count);
      for (int64_t i = 0; i < tile.query_count; i += 2) {
        const Pair pair = PairAt(tile, i);
        const int64_t visible_a = tile.queries[pair.a].visible;
        const int64_t visible_b = tile.queries[pair.b].visible;
        const int64_t needed = (visible_a > visible_b ? visible_a : visible_b) - base;
        for (int64_t e = 0; e < range.count && e < needed; e += 8) {
          float* const scores = tile.scores + base + e;
          Score8<T>({scores + pair.a * stride, scores + pair.b * stride}, s.queries + i * s.width,
                    {keys.data + e * keys.stride, keys.stride}, range.count - e,
                    {s.width, tile.scale, avx2::ScalesAt(run.key_scales, range.first + e)});
        }
      }
    });
  }

  static float Softmax(float* scores, int64_t visible) {
    const float lowest = -__builtin_inff();
    const int64_t padded = (visible + 15) / 16 * 16;
    for (int64_t e = visible; e < padded; ++e) scores[e] = lowest;
    __m512 max = _mm512_set1_ps(lowest);
    for (int64_t e = 0; e < padded; e += 16) max = _mm512_max_ps(Load(scores + e), max);
    const __m512 shift = _mm512_set1_ps(avx2::MaxLane(_mm256_max_ps(Lower(max), Upper(max))));
    __m256 sum = _mm256_setzero_ps();
    for (int64_t e = 0; e < padded; e += 16) {
      const __m512 p = Exp(_mm512_sub_ps(Load(scores + e), shift));
      _mm512_storeu_ps(scores + e, p);
      sum = _mm256_add_ps(_mm256_add_ps(sum, Lower(p)), Upper(p));
    }
    return avx2::SumLanes(sum);
  }

  template <typename T>
  static void Weigh(Scratch& s, const AttentionTile& tile) {
    avx2::ForEachBlock(
        tile, &EntryRun::values, [&](int64_t base, const EntryRun& run, Range range) {
          const Rows<T> values = avx2::BlockRows<T>(s, tile, run.values, range.first, range.count);
          const uint16_t* const scales = avx2::ScalesAt(run.value_scales, range.first);
          for (int64_t i = 0; i < tile.query_count; i += 2) {
            WeighPair<T>(s, tile, PairAt(tile, i), {values, scales, base, range.count});
          }
        });
  }
};

}  // namespace

void Attend(const AttentionTile& tile) {
  tile.query_count == 1 ? avx2::Attend(tile) : avx2::AttendBy<Steps>(tile);
}

}  // namespace catserve::cpu::avx512

// Two queries to a register: their dot products with a key in its lower and in its upper eight
// lanes. Two such pairs share each read of a key, four queries each read of a value. A query alone
// is AVX2's: it waits for memory.
#include "kernels/cpu/avx2/attend.h"
#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx512/functions.h"
#include "kernels/cpu/avx512/simd.h"

namespace catserve::cpu::avx512 {
namespace {

using avx2::kSharing;
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

// Query i of the tile; beyond the last, the last again.
int64_t QueryAt(const AttentionTile& tile, int64_t i) {
  return i < tile.query_count ? i : tile.query_count - 1;
}

struct ScoreShape {
  int64_t width;
  float scale;
  const uint16_t* key_scales;  // of the eight, or null
};

// For P pairs of queries, scores[0, 8) of both of each = (q . keys[i]) (* key scale) * scale; rows
// beyond `count` repeat the last and are ignored. queries: a pair after the other, eight numbers of
// each of its two in turn.
template <int P, typename T>
void Score8(float* const (&scores)[2 * P], const float* queries, Rows<T> keys, int64_t count,
            const ScoreShape& shape) {
  const T* rows[8];
  for (int64_t i = 0; i < 8; ++i) rows[i] = keys.data + (i < count ? i : count - 1) * keys.stride;
  __m512 sums[P][8];
#pragma GCC unroll 2
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) sums[p][i] = _mm512_setzero_ps();
  }
  for (int64_t d = 0; d < shape.width; d += 8) {
    __m512 x[P];
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p) x[p] = Load(queries + 2 * (p * shape.width + d));
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m512 key = LoadTwice(rows[i] + d);
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) sums[p][i] = _mm512_fmadd_ps(x[p], key, sums[p][i]);
    }
  }
#pragma GCC unroll 2
  for (int p = 0; p < P; ++p) {
    __m512 dots = SumLanesOfEach(sums[p]);
    if (shape.key_scales != nullptr) dots = _mm512_mul_ps(dots, LoadTwice(shape.key_scales));
    dots = _mm512_mul_ps(dots, _mm512_set1_ps(shape.scale));
    _mm256_storeu_ps(scores[2 * p], Lower(dots));
    _mm256_storeu_ps(scores[2 * p + 1], Upper(dots));
  }
}

// For Q queries, sums[q][d] = fma over entries in order of p[q][e] * values[e][d], for V vectors
// from d on.
template <int Q, int V, typename T>
void Accumulate(float* const (&sums)[Q], const float* const (&p)[Q], Rows<T> values, int64_t count,
                int64_t d) {
  __m512 lanes[Q][V];
#pragma GCC unroll 4
  for (int q = 0; q < Q; ++q) {
#pragma GCC unroll 4
    for (int i = 0; i < V; ++i) lanes[q][i] = Load(sums[q] + d + 16 * i);
  }
  for (int64_t e = 0; e < count; ++e) {
    const T* at = values.data + e * values.stride + d;
    __m512 row[V];
#pragma GCC unroll 4
    for (int i = 0; i < V; ++i) row[i] = Load(at + 16 * i);
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q) {
      const __m512 weight = _mm512_set1_ps(p[q][e]);
#pragma GCC unroll 4
      for (int i = 0; i < V; ++i) lanes[q][i] = _mm512_fmadd_ps(weight, row[i], lanes[q][i]);
    }
  }
#pragma GCC unroll 4
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

// Keys or values of up to kBlock entries.
template <typename T>
struct Block {
  Rows<T> rows;
  const uint16_t* scales;  // or null
  int64_t base;            // logical index of the first entry
  int64_t count;
};

// Scores of P pairs of queries from `first` on: of all entries of the block that at least one of
// them sees.
template <int P, typename T>
void ScorePairs(const Scratch& s, const AttentionTile& tile, int64_t first, const Block<T>& block) {
  float* scores[2 * P];
  int64_t needed = 0;
  for (int i = 0; i < 2 * P; ++i) {
    const int64_t query = QueryAt(tile, first + i);
    const int64_t seen = tile.queries[query].visible - block.base;
    needed = seen > needed ? seen : needed;
    scores[i] = tile.scores + query * ScoreStride(tile.entries) + block.base;
  }
  const int64_t stride = block.rows.stride;
  for (int64_t e = 0; e < block.count && e < needed; e += 8) {
    Score8<P, T>(scores, s.queries + first * s.width, {block.rows.data + e * stride, stride},
                 block.count - e, {s.width, tile.scale, avx2::ScalesAt(block.scales, e)});
    for (float*& at : scores) at += 8;
  }
}

// Queries [first, first + Q): first the entries that all of them see, then those that only some do.
template <int Q, typename T>
void WeighSome(Scratch& s, const AttentionTile& tile, int64_t first, const Block<T>& block) {
  int64_t counts[Q];
  float* sums[Q];
  const float* p[Q];
  int64_t all = block.count;
  for (int q = 0; q < Q; ++q) {
    const int64_t needed = tile.queries[first + q].visible - block.base;
    counts[q] = needed < 0 ? 0 : needed < block.count ? needed : block.count;
    all = counts[q] < all ? counts[q] : all;
    sums[q] = s.sums + (first + q) * s.width;
    const float* scores = tile.scores + (first + q) * ScoreStride(tile.entries) + block.base;
    p[q] = avx2::Weights(s.weights[q], scores, block.scales, counts[q]);
  }
  if (all > 0) AccumulateAll<Q>(sums, p, block.rows, all, s.width);
  const Rows<T> rest = {block.rows.data + all * block.rows.stride, block.rows.stride};
  for (int q = 0; q < Q; ++q) {
    if (counts[q] == all) continue;
    AccumulateAll<1>({sums[q]}, {p[q] + all}, rest, counts[q] - all, s.width);
  }
}

struct Steps {
  static constexpr int64_t kFewQueries = kQueryTile;  // four share each read

  static void LoadQueries(Scratch& s, const AttentionTile& tile) {
    for (int64_t i = 0; i < tile.query_count; i += 2) {
      float* to = s.queries + i * s.width;
      for (int64_t d = 0; d < s.width; d += 8, to += 16) {
        const int64_t n = tile.head_dim - d < 8 ? tile.head_dim - d : 8;
        _mm256_store_ps(to, avx2::LoadFirst(tile.queries[i].q + d, n));
        _mm256_store_ps(to + 8, avx2::LoadFirst(tile.queries[QueryAt(tile, i + 1)].q + d, n));
      }
    }
    std::memset(s.sums, 0, static_cast<size_t>(tile.query_count * s.width) * sizeof(float));
  }

  template <typename T>
  static void Score(Scratch& s, const AttentionTile& tile) {
    avx2::ForEachBlock(tile, &EntryRun::keys, [&](int64_t base, const EntryRun& run, Range range) {
      const Block<T> block = {avx2::BlockRows<T>(s, tile, run.keys, range.first, range.count),
                              avx2::ScalesAt(run.key_scales, range.first), base, range.count};
      int64_t i = 0;
      for (; i + 2 < tile.query_count; i += 4) ScorePairs<2>(s, tile, i, block);
      if (i < tile.query_count) ScorePairs<1>(s, tile, i, block);
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
          const Block<T> block = {avx2::BlockRows<T>(s, tile, run.values, range.first, range.count),
                                  avx2::ScalesAt(run.value_scales, range.first), base, range.count};
          int64_t i = 0;
          for (; i + kSharing <= tile.query_count; i += kSharing) {
            WeighSome<kSharing>(s, tile, i, block);
          }
          for (; i + 2 <= tile.query_count; i += 2) WeighSome<2>(s, tile, i, block);
          for (; i < tile.query_count; ++i) WeighSome<1>(s, tile, i, block);
        });
  }
};

}  // namespace

void Attend(const AttentionTile& tile) {
  tile.query_count == 1 ? avx2::Attend(tile) : avx2::AttendBy<Steps>(tile);
}

}  // namespace catserve::cpu::avx512

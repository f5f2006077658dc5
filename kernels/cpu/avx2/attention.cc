// Eight lanes of one query at a time.
#include "kernels/cpu/avx2/attend.h"
#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx2/simd.h"

namespace catserve::cpu::avx2 {
namespace {

// Eight sums by lanes at once: lane i is SumLanes(a[i]).
__m256 SumLanesOfEach(const __m256 (&a)[8]) {
  const __m256 q0 = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
  const __m256 q1 = _mm256_hadd_ps(_mm256_hadd_ps(a[4], a[5]), _mm256_hadd_ps(a[6], a[7]));
  return _mm256_add_ps(_mm256_permute2f128_ps(q0, q1, 0x20), _mm256_permute2f128_ps(q0, q1, 0x31));
}

struct ScoreShape {
  int64_t width;
  float scale;
  const uint16_t* key_scales;  // of the eight, or null
};

// scores[0, 8) = (q . keys[i]) (* key scale) * scale; rows beyond `count` repeat the last and are
// ignored.
template <typename T>
void Score8(float* scores, const float* q, Rows<T> keys, int64_t count, const ScoreShape& shape) {
  const T* rows[8];
  for (int64_t i = 0; i < 8; ++i) rows[i] = keys.data + (i < count ? i : count - 1) * keys.stride;
  __m256 sums[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) sums[i] = _mm256_setzero_ps();
  for (int64_t d = 0; d < shape.width; d += 8) {
    const __m256 x = Load(q + d);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) sums[i] = _mm256_fmadd_ps(x, Load(rows[i] + d), sums[i]);
  }
  __m256 dots = SumLanesOfEach(sums);
  if (shape.key_scales != nullptr) dots = _mm256_mul_ps(dots, Load(shape.key_scales));
  _mm256_storeu_ps(scores, _mm256_mul_ps(dots, _mm256_set1_ps(shape.scale)));
}

struct Steps {
  static constexpr int64_t kFewQueries = 2;

  static float Softmax(float* scores, int64_t visible) {
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

  static void LoadQueries(Scratch& s, const AttentionTile& tile) {
    for (int64_t i = 0; i < tile.query_count; ++i) {
      for (int64_t d = 0; d < s.width; d += 8) {
        const int64_t n = tile.head_dim - d < 8 ? tile.head_dim - d : 8;
        _mm256_store_ps(s.queries + i * s.width + d, LoadFirst(tile.queries[i].q + d, n));
        _mm256_store_ps(s.sums + i * s.width + d, _mm256_setzero_ps());
      }
    }
  }

  template <typename T>
  static void Score(Scratch& s, const AttentionTile& tile) {
    const int64_t stride = ScoreStride(tile.entries);
    ForEachBlock(tile, &EntryRun::keys, [&](int64_t base, const EntryRun& run, Range range) {
      const Rows<T> keys = BlockRows<T>(s, tile, run.keys, range.first, range.count);
      for (int64_t i = 0; i < tile.query_count; ++i) {
        const int64_t needed = tile.queries[i].visible - base;
        for (int64_t e = 0; e < range.count && e < needed; e += 8) {
          Score8<T>(tile.scores + i * stride + base + e, s.queries + i * s.width,
                    {keys.data + e * keys.stride, keys.stride}, range.count - e,
                    {s.width, tile.scale, ScalesAt(run.key_scales, range.first + e)});
        }
      }
    });
  }

  template <typename T>
  static void Weigh(Scratch& s, const AttentionTile& tile) {
    const int64_t stride = ScoreStride(tile.entries);
    ForEachBlock(tile, &EntryRun::values, [&](int64_t base, const EntryRun& run, Range range) {
      const Rows<T> values = BlockRows<T>(s, tile, run.values, range.first, range.count);
      for (int64_t i = 0; i < tile.query_count; ++i) {
        const int64_t needed = tile.queries[i].visible - base;
        if (needed <= 0) continue;
        const int64_t count = needed < range.count ? needed : range.count;
        const float* const p = Weights(s.weights[0], tile.scores + i * stride + base,
                                       ScalesAt(run.value_scales, range.first), count);
        AccumulateAll(s.sums + i * s.width, p, values, count, s.width);
      }
    });
  }
};

}  // namespace

void Attend(const AttentionTile& tile) { AttendBy<Steps>(tile); }

}  // namespace catserve::cpu::avx2

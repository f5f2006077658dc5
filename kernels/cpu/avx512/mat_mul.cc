// Register tiles of R rows x P panels; a panel of 16 outputs is one register. Every output keeps
// one accumulator that takes its products in order of k, so neither R nor P shows in the bits.
//
// 24 accumulators hide the latency of two multiply-add units three times over. With 12 rows and 2
// panels an input costs 24 multiply-adds, 14 loads and, of BF16, 2 shuffles: more panels and fewer
// rows would shuffle more, more rows at a time would load from more lines of one cache set than it
// has ways. Few rows come at the speed of memory, which four streams keep busy.
#include "kernels/cpu/avx512/functions.h"
#include "kernels/cpu/avx512/simd.h"

namespace catserve::cpu::avx512 {
namespace {

constexpr int64_t kFewRows = 6;
constexpr int64_t kPrefetchBytes = 4096;  // as AVX2 measured it

// The outputs of a panel, which BF16 weights have by turns from both halves.
template <typename W>
__m512 InOrder(__m512 outputs) {
  if constexpr (sizeof(W) == sizeof(float)) return outputs;
  const __m512i order = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
  return _mm512_permutexvar_ps(order, outputs);
}

template <typename W, int R, int P>
void Multiply(const MatMulTile& t) {
  __m512 sums[R][P];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) sums[r][p] = _mm512_setzero_ps();
  }
  const int64_t panel_size = t.in * kPanel;
  const W* w = static_cast<const W*>(t.panels);
  for (int64_t k = 0; k < t.in; ++k, w += kPanel) {
    __m512 weights[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const W* at = w + p * panel_size;
      // For one row the processor fetches ahead better by itself.
      if (R > 1) _mm_prefetch(reinterpret_cast<const char*>(at) + kPrefetchBytes, _MM_HINT_T0);
      weights[p] = Load(at);
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const __m512 x = _mm512_set1_ps(t.x[r * t.x_stride + k]);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) sums[r][p] = _mm512_fmadd_ps(x, weights[p], sums[r][p]);
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    const __mmask16 valid = FirstLanes(t.out_features - p * kPanel);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      Store(t.out + r * t.out_stride + p * kPanel, InOrder<W>(sums[r][p]), valid, t.add);
    }
  }
}

// For 1 to R rows.
template <typename W, int R, int P>
void MultiplyRows(const MatMulTile& t) {
  if constexpr (R > 1) {
    if (t.rows < R) return MultiplyRows<W, R - 1, P>(t);
  }
  Multiply<W, R, P>(t);
}

// P panels at a time while there are as many, so that they stay in the cache while all rows use
// them; the rows in tiles of at most R, as even as they come.
template <typename W, int R, int P>
void Run(MatMulTile t) {
  const int64_t tiles = (t.rows + R - 1) / R;
  while (t.out_features > (P - 1) * kPanel) {
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t first = t.rows * i / tiles;
      MatMulTile part = t;
      part.x += first * t.x_stride;
      part.out += first * t.out_stride;
      part.rows = t.rows * (i + 1) / tiles - first;
      MultiplyRows<W, R, P>(part);
    }
    t.panels = static_cast<const W*>(t.panels) + P * t.in * kPanel;
    t.out += P * kPanel;
    t.out_features -= P * kPanel;
  }
  if constexpr (P > 1) Run<W, R, P / 2>(t);
}

template <typename W>
void RunAny(const MatMulTile& t) {
  t.rows <= kFewRows ? Run<W, kFewRows, 4>(t) : Run<W, 12, 2>(t);
}

}  // namespace

void MatMul(const MatMulTile& tile) {
  tile.dtype == DType::kBF16 ? RunAny<uint16_t>(tile) : RunAny<float>(tile);
}

}  // namespace catserve::cpu::avx512

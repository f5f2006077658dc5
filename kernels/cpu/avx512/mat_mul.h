// Register tiles of R rows x P panels; a panel of 16 outputs is one register. Every output keeps
// one accumulator that takes its products in order of k, so neither R nor P shows in the bits.
//
// 24 accumulators hide the latency of two multiply-add units three times over. With 12 rows and 2
// panels a line of weights costs 24 operations and 14 loads. Few rows come at the speed of memory,
// which four streams keep busy.
//
// By the rules of simd.h. W names what a line of a panel holds, and how a row's sum takes it:
//   Line: the register of one; kFloats: what a row of x advances by; Inputs Load(x);
//   Add(sum, inputs, line).
#pragma once

#include "kernels/cpu/avx2/ahead.h"
#include "kernels/cpu/avx512/simd.h"
#include "kernels/cpu/ops.h"

namespace catserve::cpu::avx512 {
namespace {

constexpr int64_t kFewRows = 6;
constexpr int64_t kPrefetchBytes = 4096;  // as AVX2 measured it

template <typename W, int R, int P>
void Multiply(const MatMulTile& t, int64_t lines, avx2::Ahead ahead) {
  __m512 sums[R][P];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) sums[r][p] = _mm512_setzero_ps();
  }
  const int64_t panel_size = lines * kPanel;
  const float* w = static_cast<const float*>(t.panels);
  const float* x = t.x;
  for (int64_t line = 0; line < lines; ++line, w += kPanel, x += W::kFloats) {
    if (R > 1) ahead.Fetch();
    typename W::Line weights[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const float* at = w + p * panel_size;
      // For one row the processor fetches ahead better by itself.
      if (R > 1) _mm_prefetch(reinterpret_cast<const char*>(at) + kPrefetchBytes, _MM_HINT_T0);
      weights[p] = W::LoadLine(at);
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const typename W::Inputs inputs = W::LoadInputs(x + r * t.x_stride);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) sums[r][p] = W::Add(sums[r][p], inputs, weights[p]);
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    const __mmask16 valid = FirstLanes(t.out_features - p * kPanel);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      Store(t.out + r * t.out_stride + p * kPanel, sums[r][p], valid, t.add);
    }
  }
}

// For 1 to R rows.
template <typename W, int R, int P>
void MultiplyRows(const MatMulTile& t, int64_t lines, const avx2::Ahead& ahead) {
  if constexpr (R > 1) {
    if (t.rows < R) return MultiplyRows<W, R - 1, P>(t, lines, ahead);
  }
  Multiply<W, R, P>(t, lines, ahead);
}

// P panels at a time while there are as many, so that they stay in the cache while all rows use
// them; the rows in tiles of at most R, as even as they come.
template <typename W, int R, int P>
void RunTiles(MatMulTile t, int64_t lines) {
  const int64_t tiles = (t.rows + R - 1) / R;
  while (t.out_features > (P - 1) * kPanel) {
    const float* const next = static_cast<const float*>(t.panels) + P * lines * kPanel;
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t first = t.rows * i / tiles;
      MatMulTile part = t;
      part.x += first * t.x_stride;
      part.out += first * t.out_stride;
      part.rows = t.rows * (i + 1) / tiles - first;
      MultiplyRows<W, R, P>(part, lines, avx2::AheadOf(next, {P * kLineBytes, lines, tiles}, i));
    }
    t.panels = next;
    t.out += P * kPanel;
    t.out_features -= P * kPanel;
  }
  if constexpr (P > 1) RunTiles<W, R, P / 2>(t, lines);
}

// lines: of a panel.
template <typename W>
[[gnu::noinline]] void Run(const MatMulTile& t, int64_t lines) {
  t.rows <= kFewRows ? RunTiles<W, kFewRows, 4>(t, lines) : RunTiles<W, 12, 2>(t, lines);
}

}  // namespace
}  // namespace catserve::cpu::avx512

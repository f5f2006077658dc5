// Register tiles of R rows x P panels of 16 outputs. Every output keeps one accumulator that takes
// its products in order of k, so neither R nor P shows in the bits.
#include "kernels/cpu/avx2/ahead.h"
#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx2/simd.h"
#include "kernels/cpu/subnormals.h"

namespace catserve::cpu::avx2 {
namespace {

constexpr int64_t kTileRows = 6;  // 12 accumulators, 2 weights and 1 activation fill the registers
constexpr int64_t kPrefetchBytes = 4096;
constexpr int64_t kAheadLines = 32;  // a step of Ahead: to ask at each line costs a twentieth

// A line of a panel: the weights of sixteen outputs for one input, or for two.
struct F32Weights {
  static constexpr int kInputs = 1;
  // The weights for one of the line's inputs, of the outputs from `at` on.
  static __m256 Load(const float* at, int /*input*/) { return avx2::Load(at); }
};
struct Bf16Weights {
  static constexpr int kInputs = 2;
  static __m256 Load(const float* at, int input) {
    const __m256i both = _mm256_castps_si256(avx2::Load(at));
    return _mm256_castsi256_ps(input == 0 ? _mm256_and_si256(both, _mm256_set1_epi32(-65536))
                                          : _mm256_slli_epi32(both, 16));
  }
};

// Where one register tile reads and writes.
template <typename W>
struct Tile {
  const float* x;
  int64_t x_stride;
  const float* panel;  // [lines, kPanel]; the next follows directly
  int64_t lines;
  float* out;
  int64_t out_stride;
  int64_t out_features;  // valid outputs from `out`, at least 1
  bool add;
  Ahead ahead = {};
};

template <int R, int P, bool kFetch, typename W>
void Multiply(const Tile<W>& t) {
  __m256 sums[R][P][2];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) sums[r][p][0] = sums[r][p][1] = _mm256_setzero_ps();
  }
  const int64_t panel_size = t.lines * kPanel;
  const float* w = t.panel;
  const float* x = t.x;
  Ahead ahead = t.ahead;
  for (int64_t line = 0; line < t.lines; ++line, w += kPanel, x += W::kInputs) {
    if (R > 1 && line % kAheadLines == 0) ahead.Fetch();
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      const float* at = w + p * panel_size;
      if (kFetch) _mm_prefetch(reinterpret_cast<const char*>(at) + kPrefetchBytes, _MM_HINT_T0);
#pragma GCC unroll 2
      for (int i = 0; i < W::kInputs; ++i) {
        const __m256 low = W::Load(at, i);
        const __m256 high = W::Load(at + 8, i);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const __m256 input = _mm256_broadcast_ss(x + r * t.x_stride + i);
          sums[r][p][0] = _mm256_fmadd_ps(input, low, sums[r][p][0]);
          sums[r][p][1] = _mm256_fmadd_ps(input, high, sums[r][p][1]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p) {
    const int64_t left = t.out_features - p * kPanel;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      float* out = t.out + r * t.out_stride + p * kPanel;
      StoreOutputs(out, sums[r][p][0], sums[r][p][1], left, t.add);
    }
  }
}

template <bool kFetch, typename W>
void MultiplyRows(const Tile<W>& t, int64_t rows) {
  switch (rows) {
    case 1: return Multiply<1, 1, kFetch>(t);
    case 2: return Multiply<2, 1, kFetch>(t);
    case 3: return Multiply<3, 1, kFetch>(t);
    case 4: return Multiply<4, 1, kFetch>(t);
    case 5: return Multiply<5, 1, kFetch>(t);
    default: return Multiply<6, 1, kFetch>(t);
  }
}

// All outputs for R rows, P panels at a time while there are as many. For one row the processor
// fetches ahead better by itself.
template <int R, int P, typename W>
void FewRows(Tile<W> t) {
  while (t.out_features > 0) {
    const int64_t panels = t.out_features > (P - 1) * kPanel ? P : 1;
    if (panels == P) {
      Multiply<R, P, (R > 1)>(t);
    } else {
      Multiply<R, 1, (R > 1)>(t);
    }
    t.panel += panels * t.lines * kPanel;
    t.out += panels * kPanel;
    t.out_features -= panels * kPanel;
  }
}

// Panel by panel, so that one stays in the cache while all rows use it; the rows in tiles as even
// as they come.
template <typename W>
void ManyRows(Tile<W> t, int64_t rows) {
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t steps = (t.lines + kAheadLines - 1) / kAheadLines;
  for (; t.out_features > 0; t.out_features -= kPanel) {
    const float* const next = t.panel + t.lines * kPanel;
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t first = rows * i / tiles;
      Tile<W> part = t;
      part.x += first * t.x_stride;
      part.out += first * t.out_stride;
      part.ahead = AheadOf(next, {kAheadLines * kLineBytes, steps, tiles}, i);
      const int64_t count = rows * (i + 1) / tiles - first;
      if (i == 0) {  // brings the panel into the cache, and the beginning of the next
        MultiplyRows<true>(part, count);
      } else {
        MultiplyRows<false>(part, count);
      }
    }
    t.panel = next;
    t.out += kPanel;
  }
}

template <typename W>
[[gnu::noinline]] void Run(const MatMulTile& m) {
  if (m.rows == 0) return;
  const Tile<W> tile = {m.x,
                        m.x_stride,
                        static_cast<const float*>(m.panels),
                        W::kInputs == 1 ? m.in : Pairs(m.in),
                        m.out,
                        m.out_stride,
                        m.out_features,
                        m.add};
  switch (m.rows) {
    case 1: return FewRows<1, 4>(tile);
    case 2: return FewRows<2, 2>(tile);
    case 3: return FewRows<3, 2>(tile);
    default: return ManyRows(tile, m.rows);
  }
}

}  // namespace

// As F32.
void HoldBf16(float* to, const float* x, int64_t n) {
  const __m256 least = _mm256_set1_ps(0x1p-126f);
  const __m256 sign = _mm256_set1_ps(-0.0f);
  for (int64_t i = 0; i < n; i += 8) {
    const int64_t count = n - i < 8 ? n - i : 8;
    const __m256 in = count == 8 ? Load(x + i) : LoadFirst(x + i, count);
    const __m256 subnormal = _mm256_cmp_ps(_mm256_andnot_ps(sign, in), least, _CMP_LT_OQ);
    const __m256 flushed = _mm256_blendv_ps(in, _mm256_and_ps(in, sign), subnormal);
    const __m256 rounded = WidenBF16(NarrowBF16(flushed));
    if (count == 8) {
      _mm256_storeu_ps(to + i, rounded);  // a masked store takes an AMD processor many cycles
    } else {
      StoreFirst(to + i, rounded, 2 * Pairs(count));
    }
  }
}

void MatMul(const MatMulTile& tile) { Run<F32Weights>(tile); }

void MatMulBf16(const MatMulTile& tile) {
  const SubnormalsAsZeros flush;
  Run<Bf16Weights>(tile);
}

}  // namespace catserve::cpu::avx2

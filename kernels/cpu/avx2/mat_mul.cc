// Register tiles of R rows x P panels of 16 outputs. Every output keeps one accumulator that takes
// its products in order of k, so neither R nor P shows in the bits.
#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx2/simd.h"

namespace catserve::cpu::avx2 {
namespace {

constexpr int64_t kTileRows = 6;  // 12 accumulators, 2 weights and 1 activation fill the registers
constexpr int64_t kPrefetchBytes = 4096;

// Where one register tile reads and writes.
template <typename W>
struct Tile {
  const float* x;
  int64_t x_stride;
  const W* panel;  // [in, kPanel]; the next follows directly
  int64_t in;
  float* out;
  int64_t out_stride;
  int64_t out_features;  // valid outputs from `out`, at least 1
  bool add;
};

// The weights of a panel for one input.
void LoadOutputs(const float* w, __m256& low, __m256& high) {
  low = Load(w);
  high = Load(w + 8);
}

void LoadOutputs(const uint16_t* bf16, __m256& low, __m256& high) {
  const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bf16));
  low = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
  high = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(-65536)));
}

template <int R, int P, bool kFetch, typename W>
void Multiply(const Tile<W>& t) {
  __m256 sums[R][P][2];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) sums[r][p][0] = sums[r][p][1] = _mm256_setzero_ps();
  }
  const int64_t panel_size = t.in * kPanel;
  const W* w = t.panel;
  for (int64_t k = 0; k < t.in; ++k, w += kPanel) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      const W* at = w + p * panel_size;
      if (kFetch) _mm_prefetch(reinterpret_cast<const char*>(at) + kPrefetchBytes, _MM_HINT_T0);
      __m256 low, high;
      LoadOutputs(at, low, high);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m256 x = _mm256_broadcast_ss(t.x + r * t.x_stride + k);
        sums[r][p][0] = _mm256_fmadd_ps(x, low, sums[r][p][0]);
        sums[r][p][1] = _mm256_fmadd_ps(x, high, sums[r][p][1]);
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
    t.panel += panels * t.in * kPanel;
    t.out += panels * kPanel;
    t.out_features -= panels * kPanel;
  }
}

// Panel by panel, so that one stays in the cache while all rows use it; the rows in tiles as even
// as they come.
template <typename W>
void ManyRows(Tile<W> t, int64_t rows) {
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (; t.out_features > 0; t.out_features -= kPanel) {
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t first = rows * i / tiles;
      Tile<W> part = t;
      part.x += first * t.x_stride;
      part.out += first * t.out_stride;
      const int64_t count = rows * (i + 1) / tiles - first;
      if (i == 0) {  // brings the panel into the cache, and the beginning of the next
        MultiplyRows<true>(part, count);
      } else {
        MultiplyRows<false>(part, count);
      }
    }
    t.panel += t.in * kPanel;
    t.out += kPanel;
  }
}

template <typename W>
void Run(const MatMulTile& m) {
  const Tile<W> tile = {
      m.x,  m.x_stride, static_cast<const W*>(m.panels), m.in, m.out, m.out_stride, m.out_features,
      m.add};
  switch (m.rows) {
    case 1: return FewRows<1, 4>(tile);
    case 2: return FewRows<2, 2>(tile);
    case 3: return FewRows<3, 2>(tile);
    default: return ManyRows(tile, m.rows);
  }
}

}  // namespace

void MatMul(const MatMulTile& tile) {
  if (tile.rows == 0) return;
  if (tile.dtype == DType::kBF16) {
    Run<uint16_t>(tile);
  } else {
    Run<float>(tile);
  }
}

}  // namespace catserve::cpu::avx2

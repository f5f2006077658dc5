// Register tiles of R rows x one panel. Weights are multiplied by pairs of inputs sixteen at a
// time: as the words that they are, then the upper byte of each (Int16Group says why that is
// right). Sums within a group are exact, so only the order of the groups shows in the bits.
//
// One panel at a time also for one row: several streams from memory, panels apart, were slower. One
// row leaves fetching ahead to the processor, as in mat_mul.cc.
// vpmaddubsw takes twice as many products, but needs one factor without a sign (vpsignb) and its
// results widened before they are added (vpmaddwd): on the two multipliers of Zen 2 and 3 these
// three take longer than two times vpmaddwd.
#include "kernels/cpu/avx2/ahead.h"
#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx2/simd.h"

namespace catserve::cpu::avx2 {
namespace {

constexpr int64_t kTileRows = 4;
constexpr int64_t kPrefetchBytes = 2048;

// sums += the products of words with two inputs.
[[gnu::always_inline]] inline void AddProducts(__m256i (&sums)[2], const __m256i (&words)[2],
                                               const int16_t* two) {
  const __m256i inputs = Broadcast32(two);
#pragma GCC unroll 2
  for (int64_t half = 0; half < 2; ++half) {
    sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(words[half], inputs));
    Settle(sums[half]);
  }
}

// The products of one group's weights with R rows of inputs, `stride` groups apart.
template <int R, bool kFetch>
[[gnu::always_inline]] inline void Dot(__m256i (&dots)[R][2], const Int8Weights& w,
                                       const Int16Group* x, int64_t stride) {
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) dots[r][0] = dots[r][1] = Broadcast32(&x[r * stride].start);
#pragma GCC unroll 8
  for (int64_t i = 0; i < kQuads; ++i) {
    const auto* from = reinterpret_cast<const __m256i*>(w.quads[i]);
    if (kFetch) {
      _mm_prefetch(reinterpret_cast<const char*>(from) + kPrefetchBytes, _MM_HINT_T0);
    }
    const __m256i words[2] = {_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)};
    const __m256i upper[2] = {_mm256_srai_epi16(words[0], 8), _mm256_srai_epi16(words[1], 8)};
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) AddProducts(dots[r], words, x[r * stride].even + 2 * i);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) AddProducts(dots[r], upper, x[r * stride].odd + 2 * i);
  }
}

// One panel for R rows. kFetch: the panel comes from memory.
template <int R, bool kFetch>
void Multiply(const Int8Tile& t, Ahead ahead) {
  __m256 sums[R][2];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_ps();
  for (int64_t g = 0; g < t.groups; ++g) {
    if (R > 1) ahead.Fetch();
    __m256i dots[R][2];
    Dot<R, kFetch>(dots, t.panels[g], t.x + g, t.groups);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const __m256 scale = _mm256_set1_ps(t.x[r * t.groups + g].scale);
#pragma GCC unroll 2
      for (int64_t half = 0; half < 2; ++half) {
        sums[r][half] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dots[r][half]), sums[r][half]);
      }
    }
  }
  const __m256 low = Load(t.scales);
  const __m256 high = Load(t.scales + 8);
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    StoreOutputs(t.out + r * t.out_stride, _mm256_mul_ps(sums[r][0], low),
                 _mm256_mul_ps(sums[r][1], high), t.out_features, t.add);
  }
}

template <bool kFetch>
void MultiplyRows(const Int8Tile& t, const Ahead& ahead) {
  switch (t.rows) {
    case 1: return Multiply<1, false>(t, ahead);
    case 2: return Multiply<2, kFetch>(t, ahead);
    case 3: return Multiply<3, kFetch>(t, ahead);
    default: return Multiply<4, kFetch>(t, ahead);
  }
}

}  // namespace

// Panel by panel, so that one stays in the cache while all rows use it; the rows in tiles as even
// as they come.
void MatMulInt8(const Int8Tile& tile) {
  Int8Tile t = tile;
  const int64_t tiles = (t.rows + kTileRows - 1) / kTileRows;
  for (; t.out_features > 0; t.out_features -= kPanel) {
    const Int8Weights* const next = t.panels + t.groups;
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t first = t.rows * i / tiles;
      Int8Tile part = t;
      part.x += first * t.groups;
      part.out += first * t.out_stride;
      part.rows = t.rows * (i + 1) / tiles - first;
      const Ahead ahead = AheadOf(next, {sizeof(*next), t.groups, tiles}, i);
      i == 0 ? MultiplyRows<true>(part, ahead) : MultiplyRows<false>(part, ahead);
    }
    t.out += kPanel;
    t.panels = next;
    t.scales += kPanel;
  }
}

}  // namespace catserve::cpu::avx2

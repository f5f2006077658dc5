// As avx2/mat_mul_int4.cc, with VNNI: four inputs of sixteen outputs in one instruction. Sums of
// whole numbers are exact, so only the order of the groups shows in the bits.
#include <cstring>

#include "kernels/cpu/avx512/functions.h"
#include "kernels/cpu/avx512/simd.h"

namespace catserve::cpu::avx512 {
namespace {

constexpr int kTileRows = 12;        // 12 sums and 10 registers of weights of 32
constexpr int64_t kGroupsAhead = 4;  // 1,280 bytes: what is fetched before it is needed

// One panel's weights for one group.
struct Weights {
  __m512i quads[kQuads];  // bytes: four inputs of each output
  __m512 scales;
  __m512 minima;
};

Weights LoadWeights(const Int4Group& group) {
  const __m512i low = _mm512_set1_epi8(0xf);
  Weights w;
#pragma GCC unroll 4
  for (int64_t i = 0; i < kQuads / 2; ++i) {
    const __m512i both = _mm512_loadu_si512(group.nibbles + i * 64);
    w.quads[2 * i] = _mm512_and_si512(both, low);
    w.quads[2 * i + 1] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
  }
  w.scales = Load(group.scales);
  w.minima = Load(group.minima);
  return w;
}

__m512i Quad(const Int8Group& x, int64_t i) {
  int32_t four;
  std::memcpy(&four, x.numbers + 4 * i, sizeof(four));
  return _mm512_set1_epi32(four);
}

__m512 Add(const Weights& w, const Int8Group& x, __m512 sum) {
  __m512i dots = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int64_t i = 0; i < kQuads; ++i) dots = _mm512_dpbusd_epi32(dots, w.quads[i], Quad(x, i));
  const __m512 scales = _mm512_mul_ps(w.scales, _mm512_set1_ps(x.scale));
  sum = _mm512_fmadd_ps(scales, _mm512_cvtepi32_ps(dots), sum);
  return _mm512_fmadd_ps(w.minima, _mm512_set1_ps(x.sum), sum);
}

// One panel for R rows.
template <int R>
void Multiply(const Int4Tile& t) {
  __m512 sums[R];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) sums[r] = _mm512_setzero_ps();
  for (int64_t g = 0; g < t.groups; ++g) {
    const char* ahead = reinterpret_cast<const char*>(t.panels + g + kGroupsAhead);
#pragma GCC unroll 5
    for (int64_t i = 0; i < 5; ++i) _mm_prefetch(ahead + 64 * i, _MM_HINT_T0);
    const Weights w = LoadWeights(t.panels[g]);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) sums[r] = Add(w, t.x[r * t.groups + g], sums[r]);
  }
  const __mmask16 valid = FirstLanes(t.out_features);
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) Store(t.out + r * t.out_stride, sums[r], valid, t.add);
}

// For 1 to R rows.
template <int R>
void MultiplyRows(const Int4Tile& t) {
  if constexpr (R > 1) {
    if (t.rows < R) return MultiplyRows<R - 1>(t);
  }
  Multiply<R>(t);
}

}  // namespace

// Panel by panel, so that one stays in the cache while all rows use it.
void MatMulInt4(const Int4Tile& tile) {
  Int4Tile t = tile;
  for (; t.out_features > 0; t.out_features -= kPanel, t.out += kPanel, t.panels += t.groups) {
    for (int64_t first = 0; first < tile.rows; first += kTileRows) {
      Int4Tile part = t;
      part.x += first * t.groups;
      part.out += first * t.out_stride;
      part.rows = tile.rows - first;
      MultiplyRows<kTileRows>(part);
    }
  }
}

}  // namespace catserve::cpu::avx512

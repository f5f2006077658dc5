// Products of whole numbers with VNNI: one instruction adds four products for each of sixteen
// outputs. Sums within a group are exact, so only the order of the groups shows in the bits.
//
// It takes one factor without a sign. Weights of 4 bits have none; with those of 8 bits it is the
// input, held with 128 added, and what that adds to a sum is taken off again: it is the same for
// all rows.
#include <cstring>

#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx512/functions.h"
#include "kernels/cpu/avx512/simd.h"

namespace catserve::cpu::avx512 {
namespace {

constexpr int kTileRows = 12;  // 12 sums and up to 10 registers of weights of 32
constexpr int64_t kPrefetchBytes = 1280;

__m512i Quad(const void* numbers, int64_t i) {
  int32_t four;
  std::memcpy(&four, static_cast<const char*>(numbers) + 4 * i, sizeof(four));
  return _mm512_set1_epi32(four);
}

struct FourBits {
  using Tile = Int4Tile;
  // One panel's for one group of inputs.
  struct Weights {
    __m512i quads[kQuads];  // bytes: four inputs of each output
    __m512 scales;
    __m512 minima;
  };

  static Weights LoadWeights(const Int4Group& group) {
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

  static __m512 Add(const Weights& w, const Int8Group& x, __m512 sum) {
    __m512i dots = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int64_t i = 0; i < kQuads; ++i) {
      dots = _mm512_dpbusd_epi32(dots, w.quads[i], Quad(x.numbers, i));
    }
    const __m512 scales = _mm512_mul_ps(w.scales, _mm512_set1_ps(x.scale));
    sum = _mm512_fmadd_ps(scales, _mm512_cvtepi32_ps(dots), sum);
    return _mm512_fmadd_ps(w.minima, _mm512_set1_ps(x.sum), sum);
  }

  static __m512 Finish(const Int4Tile&, __m512 sum) { return sum; }
  static void NextPanel(Int4Tile&) {}
};

struct EightBits {
  using Tile = Int8Tile;
  struct Weights {
    __m512i quads[kQuads];
    __m512i start;  // - 128 * the sum of an output's weights
  };

  static Weights LoadWeights(const Int8Weights& group) {
    const __m512i added = _mm512_set1_epi8(-128);  // 128 without a sign
    const __m512i even = _mm512_set1_epi16(0x80);  // the weights of these get their signs back
    __m512i more = _mm512_setzero_si512();
    Weights w;
#pragma GCC unroll 8
    for (int64_t i = 0; i < kQuads; ++i) {
      w.quads[i] = _mm512_xor_si512(_mm512_loadu_si512(group.quads[i]), even);
      more = _mm512_dpbusd_epi32(more, added, w.quads[i]);
    }
    w.start = _mm512_sub_epi32(_mm512_setzero_si512(), more);
    return w;
  }

  static __m512 Add(const Weights& w, const Int16Group& x, __m512 sum) {
    __m512i dots = w.start;
#pragma GCC unroll 8
    for (int64_t i = 0; i < kQuads; ++i) {
      dots = _mm512_dpbusd_epi32(dots, Quad(x.even, i), w.quads[i]);
    }
    return _mm512_fmadd_ps(_mm512_set1_ps(x.scale), _mm512_cvtepi32_ps(dots), sum);
  }

  static __m512 Finish(const Int8Tile& t, __m512 sum) { return _mm512_mul_ps(sum, Load(t.scales)); }
  static void NextPanel(Int8Tile& t) { t.scales += kPanel; }
};

// One panel for R rows.
template <typename Kind, int R>
void Multiply(const typename Kind::Tile& t) {
  __m512 sums[R];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) sums[r] = _mm512_setzero_ps();
  for (int64_t g = 0; g < t.groups; ++g) {
    const char* const group = reinterpret_cast<const char*>(t.panels + g);
#pragma GCC unroll 8
    for (size_t i = 0; i < sizeof(t.panels[g]); i += 64) {
      _mm_prefetch(group + kPrefetchBytes + i, _MM_HINT_T0);
    }
    const typename Kind::Weights w = Kind::LoadWeights(t.panels[g]);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) sums[r] = Kind::Add(w, t.x[r * t.groups + g], sums[r]);
  }
  const __mmask16 valid = FirstLanes(t.out_features);
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    Store(t.out + r * t.out_stride, Kind::Finish(t, sums[r]), valid, t.add);
  }
}

// For 1 to R rows.
template <typename Kind, int R>
void MultiplyRows(const typename Kind::Tile& t) {
  if constexpr (R > 1) {
    if (t.rows < R) return MultiplyRows<Kind, R - 1>(t);
  }
  Multiply<Kind, R>(t);
}

// Panel by panel, so that one stays in the cache while all rows use it.
template <typename Kind>
void Run(typename Kind::Tile t) {
  for (; t.out_features > 0; t.out_features -= kPanel, t.out += kPanel, t.panels += t.groups) {
    for (int64_t first = 0; first < t.rows; first += kTileRows) {
      typename Kind::Tile part = t;
      part.x += first * t.groups;
      part.out += first * t.out_stride;
      part.rows = t.rows - first;
      MultiplyRows<Kind, kTileRows>(part);
    }
    Kind::NextPanel(t);
  }
}

}  // namespace

// As bytes without a sign, 128 added, in the place of `even`.
void HoldInt16Groups(Int16Group* to, const float* x, int64_t groups) {
  const __m256i added = _mm256_set1_epi8(-128);
  for (int64_t g = 0; g < groups; ++g) {
    Int8Group held;
    avx2::HoldInt8Groups(&held, x + g * kGroupInputs, 1);
    __m256i numbers;
    std::memcpy(&numbers, held.numbers, sizeof(numbers));
    numbers = _mm256_xor_si256(numbers, added);
    std::memcpy(to[g].even, &numbers, sizeof(numbers));
    to[g].scale = held.scale;
  }
}

void MatMulInt4(const Int4Tile& tile) { Run<FourBits>(tile); }
void MatMulInt8(const Int8Tile& tile) { Run<EightBits>(tile); }

}  // namespace catserve::cpu::avx512

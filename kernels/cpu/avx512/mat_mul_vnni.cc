// Products of whole numbers with VNNI: one instruction adds four products for each of sixteen
// outputs. Sums within a group are exact, so only the order of the groups shows in the bits.
//
// It takes one factor without a sign. Weights of 4 bits have none; those of 8 bits get 128 added,
// and what that adds to a sum is taken off by where the sum begins.
#include <cstring>

#include "kernels/cpu/avx2/ahead.h"
#include "kernels/cpu/avx2/hold_group.h"
#include "kernels/cpu/avx512/functions.h"
#include "kernels/cpu/avx512/simd.h"

namespace catserve::cpu::avx512 {
namespace {

constexpr int kFewRows = 4;   // with 1 panel: what comes from memory is one stream
constexpr int kTileRows = 6;  // with 2 panels: 12 sums, and 12 sums of whole numbers
constexpr int64_t kPrefetchBytes = 4096;

__m512i Quad(const void* numbers, int64_t i) {
  int32_t four;
  std::memcpy(&four, static_cast<const char*>(numbers) + 4 * i, sizeof(four));
  return _mm512_set1_epi32(four);
}

// What differs by the weights. Held is a row's group of inputs; sums of whole numbers begin at
// Start; Scales are what a panel has beside its numbers for a group.
struct FourBits {
  using Tile = Int4Tile;
  using Held = Int8Group;
  struct Scales {
    __m512 scales;
    __m512 minima;
  };

  static __m512i LoadQuads(const Int4Group& group, int64_t i) {
    const __m512i both = _mm512_loadu_si512(group.nibbles + i / 2 * 64);
    return _mm512_and_si512(i % 2 == 0 ? both : _mm512_srli_epi16(both, 4), _mm512_set1_epi8(0xf));
  }
  static Scales LoadScales(const Int4Group& g) { return {Load(g.scales), Load(g.minima)}; }
  static __m512i Start(const Held&) { return _mm512_setzero_si512(); }

  static __m512 Add(__m512 sum, __m512i dots, const Held& x, const Scales& w) {
    const __m512 scales = _mm512_mul_ps(w.scales, _mm512_set1_ps(x.scale));
    sum = _mm512_fmadd_ps(scales, _mm512_cvtepi32_ps(dots), sum);
    return _mm512_fmadd_ps(w.minima, _mm512_set1_ps(x.sum), sum);
  }

  static __m512 Finish(const Tile&, int /*panel*/, __m512 sum) { return sum; }
  static void NextPanels(Tile&, int /*count*/) {}
};

// A group of inputs in place of Int16Group, one after the other from the beginning of the row.
struct SignedGroup {
  int8_t numbers[kGroupInputs];
  float scale;
  int32_t start;  // -128 * the sum of the numbers
};
static_assert(sizeof(SignedGroup) <= sizeof(Int16Group));

struct EightBits {
  using Tile = Int8Tile;
  using Held = SignedGroup;
  struct Scales {};

  static __m512i LoadQuads(const Int8Weights& group, int64_t i) {
    const __m512i odd = _mm512_set1_epi16(-32768);  // those of even inputs have their 128 already
    return _mm512_xor_si512(_mm512_loadu_si512(group.quads[i]), odd);
  }
  static Scales LoadScales(const Int8Weights&) { return {}; }
  static __m512i Start(const Held& x) { return _mm512_set1_epi32(x.start); }

  static __m512 Add(__m512 sum, __m512i dots, const Held& x, const Scales&) {
    return _mm512_fmadd_ps(_mm512_set1_ps(x.scale), _mm512_cvtepi32_ps(dots), sum);
  }

  static __m512 Finish(const Tile& t, int panel, __m512 sum) {
    return _mm512_mul_ps(sum, Load(t.scales + panel * kPanel));
  }
  static void NextPanels(Tile& t, int count) { t.scales += count * kPanel; }
};

// P panels for R rows. Two panels share the loads of inputs, of which a processor may do as few as
// one for every multiplication. Not inlined, so that each finds registers for its own loop.
template <typename Kind, int R, int P>
[[gnu::noinline]] void Multiply(const typename Kind::Tile& t, bool fetch, avx2::Ahead ahead) {
  __m512 sums[R][P];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p) sums[r][p] = _mm512_setzero_ps();
  }
  const int64_t row_bytes = t.groups * static_cast<int64_t>(sizeof(*t.x));
  const char* x = reinterpret_cast<const char*>(t.x);
  const auto* group = t.panels;
  for (int64_t g = 0; g < t.groups; ++g, ++group, x += sizeof(typename Kind::Held)) {
    const auto held = [&](int r) -> const typename Kind::Held& {
      return *reinterpret_cast<const typename Kind::Held*>(x + r * row_bytes);
    };
    for (int p = 0; fetch && p < P; ++p) {
      const char* const at = reinterpret_cast<const char*>(group + p * t.groups);
#pragma GCC unroll 8
      for (size_t i = 0; i < sizeof(*group); i += 64) {
        _mm_prefetch(at + kPrefetchBytes + i, _MM_HINT_T0);
      }
    }
    ahead.Fetch();
    __m512i dots[R][P];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) dots[r][p] = Kind::Start(held(r));
    }
#pragma GCC unroll 8
    for (int64_t i = 0; i < kQuads; ++i) {
      __m512i weights[P];
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) weights[p] = Kind::LoadQuads(group[p * t.groups], i);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512i inputs = Quad(held(r).numbers, i);
#pragma GCC unroll 2
        for (int p = 0; p < P; ++p) {
          dots[r][p] = _mm512_dpbusd_epi32(dots[r][p], weights[p], inputs);
        }
      }
    }
#pragma GCC unroll 2
    for (int p = 0; p < P; ++p) {
      const typename Kind::Scales scales = Kind::LoadScales(group[p * t.groups]);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sums[r][p] = Kind::Add(sums[r][p], dots[r][p], held(r), scales);
    }
  }
#pragma GCC unroll 2
  for (int p = 0; p < P; ++p) {
    const __mmask16 valid = FirstLanes(t.out_features - p * kPanel);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      float* const out = t.out + r * t.out_stride + p * kPanel;
      Store(out, Kind::Finish(t, p, sums[r][p]), valid, t.add);
    }
  }
}

// For 1 to R rows.
template <typename Kind, int R, int P>
void MultiplyRows(const typename Kind::Tile& t, bool fetch, const avx2::Ahead& ahead) {
  if constexpr (R > 1) {
    if (t.rows < R) return MultiplyRows<Kind, R - 1, P>(t, fetch, ahead);
  }
  Multiply<Kind, R, P>(t, fetch, ahead);
}

// P panels at a time while there are as many, so that they stay in the cache while all rows use
// them; the rows in tiles of at most R, as even as they come.
template <typename Kind, int R, int P>
void Run(typename Kind::Tile t) {
  const int64_t tiles = (t.rows + R - 1) / R;
  while (t.out_features > (P - 1) * kPanel) {
    const auto* const next = t.panels + P * t.groups;
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t first = t.rows * i / tiles;
      typename Kind::Tile part = t;
      part.x += first * t.groups;
      part.out += first * t.out_stride;
      part.rows = t.rows * (i + 1) / tiles - first;
      const bool fetch = i == 0 && t.rows > 1;  // for one row the processor does it better
      MultiplyRows<Kind, R, P>(part, fetch,
                               avx2::AheadOf(next, {P * sizeof(*next), t.groups, tiles}, i));
    }
    t.panels = next;
    t.out += P * kPanel;
    t.out_features -= P * kPanel;
    Kind::NextPanels(t, P);
  }
  if constexpr (P > 1) Run<Kind, R, P / 2>(t);
}

template <typename Kind>
void RunAny(const typename Kind::Tile& t) {
  t.rows <= kFewRows ? Run<Kind, kFewRows, 1>(t) : Run<Kind, kTileRows, 2>(t);
}

}  // namespace

void HoldInt16Groups(Int16Group* row, int64_t first, const float* x, int64_t groups) {
  auto* const to = reinterpret_cast<SignedGroup*>(row) + first;
  for (int64_t g = 0; g < groups; ++g) {
    const avx2::Held held = avx2::HoldGroup(x + g * kGroupInputs);
    std::memcpy(to[g].numbers, &held.numbers, sizeof(held.numbers));
    to[g].scale = held.scale;
    to[g].start = -128 * avx2::SumBytes(held.numbers);
  }
}

void MatMulInt4(const Int4Tile& tile) { RunAny<FourBits>(tile); }
void MatMulInt8(const Int8Tile& tile) { RunAny<EightBits>(tile); }

}  // namespace catserve::cpu::avx512

// Whole numbers are multiplied 32 at a time: four inputs of eight outputs. Sums of their products
// are exact, so only the order of the groups shows in the bits.
#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx2/simd.h"

namespace catserve::cpu::avx2 {
namespace {

constexpr int64_t kTileRows = 4;
constexpr int64_t kGroupsAhead = 4;  // 1,280 bytes: what is fetched before it is needed
constexpr int64_t kQuads = 8;        // of inputs in a group

// Eight outputs' weights for one group.
struct Weights {
  __m256i quads[kQuads];  // bytes: four inputs of each output
  __m256 scales;
  __m256 minima;
};

Weights LoadWeights(const Int4Group& group, int64_t half) {
  const __m256i low = _mm256_set1_epi8(0xf);
  Weights w;
#pragma GCC unroll 4
  for (int64_t i = 0; i < kQuads / 2; ++i) {
    const uint8_t* from = group.nibbles + (half * 4 + i) * 32;
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    w.quads[2 * i] = _mm256_and_si256(both, low);
    w.quads[2 * i + 1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
  }
  w.scales = Load(group.scales + half * 8);
  w.minima = Load(group.minima + half * 8);
  return w;
}

__m256i Quad(const Int8Group& x, int64_t i) {
  int32_t four;
  std::memcpy(&four, x.numbers + 4 * i, sizeof(four));
  return _mm256_set1_epi32(four);
}

__m256 Add(const Weights& w, const Int8Group& x, __m256 sum) {
  // No sum of 16 bits overflows: 16 products of at most 15 * 127 make 30,480.
  __m256i pairs = _mm256_maddubs_epi16(w.quads[0], Quad(x, 0));
#pragma GCC unroll 8
  for (int64_t i = 1; i < kQuads; ++i) {
    pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w.quads[i], Quad(x, i)));
  }
  const __m256 dots = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  sum = _mm256_fmadd_ps(_mm256_mul_ps(w.scales, _mm256_set1_ps(x.scale)), dots, sum);
  return _mm256_fmadd_ps(w.minima, _mm256_set1_ps(x.sum), sum);
}

void Store(float* out, __m256 sum, int64_t valid, bool add) {
  if (valid <= 0) return;
  const int64_t n = valid < 8 ? valid : 8;
  if (add) sum = _mm256_add_ps(LoadFirst(out, n), sum);
  StoreFirst(out, sum, n);
}

// One panel for R rows. kFetch: the panel comes from memory.
template <int R, bool kFetch>
void Multiply(const Int4Tile& t) {
  __m256 sums[R][2];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_ps();
  for (int64_t g = 0; g < t.groups; ++g) {
    if (kFetch) {
      const char* ahead = reinterpret_cast<const char*>(t.panels + g + kGroupsAhead);
#pragma GCC unroll 5
      for (int64_t i = 0; i < 5; ++i) _mm_prefetch(ahead + 64 * i, _MM_HINT_T0);
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const Weights w = LoadWeights(t.panels[g], half);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sums[r][half] = Add(w, t.x[r * t.groups + g], sums[r][half]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    float* out = t.out + r * t.out_stride;
    Store(out, sums[r][0], t.out_features, t.add);
    Store(out + 8, sums[r][1], t.out_features - 8, t.add);
  }
}

template <bool kFetch>
void MultiplyRows(const Int4Tile& t) {
  switch (t.rows) {
    case 1: return Multiply<1, kFetch>(t);
    case 2: return Multiply<2, kFetch>(t);
    case 3: return Multiply<3, kFetch>(t);
    default: return Multiply<4, kFetch>(t);
  }
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
      part.rows = tile.rows - first < kTileRows ? tile.rows - first : kTileRows;
      first == 0 ? MultiplyRows<true>(part) : MultiplyRows<false>(part);
    }
  }
}

}  // namespace catserve::cpu::avx2

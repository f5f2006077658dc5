// Whole numbers are multiplied 32 at a time: four inputs of eight outputs. Sums of their products
// are exact, so only the order of the groups shows in the bits. A few rows take the weights as they
// come from memory; for many, a panel's are unpacked once, some groups at a time.
#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx2/simd.h"

namespace catserve::cpu::avx2 {
namespace {

constexpr int64_t kTileRows = 4;
constexpr int64_t kManyRows = 16;    // from here on unpacking pays
constexpr int64_t kGroupsAhead = 4;  // 1,280 bytes: what is fetched before it is needed
constexpr int64_t kChunkGroups = 8;  // unpacked together: 5 KB
constexpr int64_t kBlockRows = 96;   // whose sums lie in the cache between chunks: 6 KB

// A group of one panel, with a byte for each weight.
struct Unpacked {
  alignas(32) uint8_t quads[kQuads][kPanel][4];
  alignas(32) float scales[kPanel];
  alignas(32) float minima[kPanel];
};

__m256i LoadBytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// Two quads of eight outputs, from the lower and the upper halves of 32 bytes.
[[gnu::always_inline]] inline void Split(__m256i (&quads)[2], const uint8_t* nibbles) {
  const __m256i low = _mm256_set1_epi8(0xf);
  const __m256i both = LoadBytes(nibbles);
  quads[0] = _mm256_and_si256(both, low);
  quads[1] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
}

// pairs += the products of a quad of eight outputs. No sum of 16 bits overflows within a group: 16
// products of at most 15 * 127 make 30,480.
[[gnu::always_inline]] inline void AddQuad(__m256i& pairs, __m256i weights, const Int8Group& x,
                                           int64_t quad) {
  const __m256i inputs = Broadcast32(x.numbers + 4 * quad);
  pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(weights, inputs));
  Settle(pairs);
}

// The sum so far with a group's products.
[[gnu::always_inline]] inline __m256 AddGroup(__m256 sum, __m256i pairs, __m256 scales,
                                              __m256 minima, const Int8Group& x) {
  const __m256 dots = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  sum = _mm256_fmadd_ps(_mm256_mul_ps(scales, _mm256_set1_ps(x.scale)), dots, sum);
  return _mm256_fmadd_ps(minima, _mm256_set1_ps(x.sum), sum);
}

// One panel, straight from memory, for R rows.
template <int R>
void MultiplyPacked(const Int4Tile& t) {
  __m256 sums[R][2];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_ps();
  for (int64_t g = 0; g < t.groups; ++g) {
    const Int4Group& w = t.panels[g];
    if constexpr (R > 1) {  // one row leaves it to the processor, as in mat_mul.cc
      const char* ahead = reinterpret_cast<const char*>(&w + kGroupsAhead);
#pragma GCC unroll 5
      for (int64_t i = 0; i < 5; ++i) _mm_prefetch(ahead + 64 * i, _MM_HINT_T0);
    }
#pragma GCC unroll 2
    for (int64_t half = 0; half < 2; ++half) {
      __m256i pairs[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) pairs[r] = _mm256_setzero_si256();
#pragma GCC unroll 4
      for (int64_t i = 0; i < kQuads; i += 2) {
        __m256i quads[2];
        Split(quads, w.nibbles + i * 32 + half * 32);
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
          AddQuad(pairs[r], quads[0], t.x[r * t.groups + g], i);
          AddQuad(pairs[r], quads[1], t.x[r * t.groups + g], i + 1);
        }
      }
      const __m256 scales = Load(w.scales + half * 8);
      const __m256 minima = Load(w.minima + half * 8);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        sums[r][half] = AddGroup(sums[r][half], pairs[r], scales, minima, t.x[r * t.groups + g]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    StoreOutputs(t.out + r * t.out_stride, sums[r][0], sums[r][1], t.out_features, t.add);
  }
}

void Unpack(Unpacked& to, const Int4Group& group) {
  for (int64_t i = 0; i < kQuads; i += 2) {
    for (int64_t half = 0; half < 2; ++half) {
      __m256i quads[2];
      Split(quads, group.nibbles + i * 32 + half * 32);
      _mm256_store_si256(reinterpret_cast<__m256i*>(to.quads[i][half * 8]), quads[0]);
      _mm256_store_si256(reinterpret_cast<__m256i*>(to.quads[i + 1][half * 8]), quads[1]);
    }
  }
  for (int64_t half = 0; half < 2; ++half) {
    _mm256_store_ps(to.scales + half * 8, Load(group.scales + half * 8));
    _mm256_store_ps(to.minima + half * 8, Load(group.minima + half * 8));
  }
}

// Some groups of one panel, for R rows of inputs that are `stride` groups apart.
template <int R>
void AddUnpacked(float (*sums)[kPanel], const Unpacked* w, int64_t groups, const Int8Group* x,
                 int64_t stride) {
  for (int64_t g = 0; g < groups; ++g) {
    __m256i pairs[R][2];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) pairs[r][0] = pairs[r][1] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int64_t i = 0; i < kQuads; ++i) {
      const __m256i low = LoadBytes(w[g].quads[i]);
      const __m256i high = LoadBytes(w[g].quads[i][8]);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        AddQuad(pairs[r][0], low, x[r * stride + g], i);
        AddQuad(pairs[r][1], high, x[r * stride + g], i);
      }
    }
#pragma GCC unroll 2
    for (int64_t half = 0; half < 2; ++half) {
      const __m256 scales = _mm256_load_ps(w[g].scales + half * 8);
      const __m256 minima = _mm256_load_ps(w[g].minima + half * 8);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        float* sum = sums[r] + half * 8;
        _mm256_store_ps(
            sum, AddGroup(_mm256_load_ps(sum), pairs[r][half], scales, minima, x[r * stride + g]));
      }
    }
  }
}

// One panel for a few rows, in tiles as even as they come.
void MultiplyFewRows(const Int4Tile& t) {
  const int64_t tiles = (t.rows + kTileRows - 1) / kTileRows;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t first = t.rows * i / tiles;
    Int4Tile part = t;
    part.x += first * t.groups;
    part.out += first * t.out_stride;
    switch (t.rows * (i + 1) / tiles - first) {
      case 1: MultiplyPacked<1>(part); break;
      case 2: MultiplyPacked<2>(part); break;
      case 3: MultiplyPacked<3>(part); break;
      default: MultiplyPacked<4>(part); break;
    }
  }
}

// One panel for kManyRows to kBlockRows rows: tiles of 3 or 4.
void MultiplyBlock(const Int4Tile& t) {
  alignas(32) float sums[kBlockRows][kPanel] = {};
  Unpacked chunk[kChunkGroups];
  const int64_t tiles = (t.rows + kTileRows - 1) / kTileRows;
  for (int64_t begin = 0; begin < t.groups; begin += kChunkGroups) {
    const int64_t groups = t.groups - begin < kChunkGroups ? t.groups - begin : kChunkGroups;
    for (int64_t g = 0; g < groups; ++g) Unpack(chunk[g], t.panels[begin + g]);
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t first = t.rows * i / tiles;
      const bool four = t.rows * (i + 1) / tiles - first == 4;
      (four ? AddUnpacked<4> : AddUnpacked<3>)(sums + first, chunk, groups,
                                               t.x + first * t.groups + begin, t.groups);
    }
  }
  for (int64_t r = 0; r < t.rows; ++r) {
    StoreOutputs(t.out + r * t.out_stride, Load(sums[r]), Load(sums[r] + 8), t.out_features, t.add);
  }
}

void MultiplyPanel(const Int4Tile& t) {
  if (t.rows < kManyRows) return MultiplyFewRows(t);
  const int64_t blocks = (t.rows + kBlockRows - 1) / kBlockRows;
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t first = t.rows * i / blocks;
    Int4Tile part = t;
    part.x += first * t.groups;
    part.out += first * t.out_stride;
    part.rows = t.rows * (i + 1) / blocks - first;
    MultiplyBlock(part);
  }
}

}  // namespace

void MatMulInt4(const Int4Tile& tile) {
  Int4Tile t = tile;
  for (; t.out_features > 0; t.out_features -= kPanel, t.out += kPanel, t.panels += t.groups) {
    MultiplyPanel(t);
  }
}

}  // namespace catserve::cpu::avx2

// Paged attention for pieces: rows of one page list, each of which sees one entry more than the row
// before it (prefill; large groups of query heads). On the tensor cores, m16n8k16.
//
//   S = Q K^T,  P = 2^(S log2(e) / sqrt(head_dim) - max),  out = P V / sum P
//
// A block takes one key/value head and up to kPieceQueries queries (row, head of the group); each
// of its four warps owns 16 of them. Keys and values come through shared memory, kTileEntries at a
// time, already in the activations' type; the accumulators of S are, as they lie, the operand P.
// P is rounded to that type, its sum is not: see the table of tolerances in the tests.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/paged_attention.h"

namespace catserve::cuda {

inline constexpr int kPieceThreads = 128;
inline constexpr int kTileEntries = 64;

inline LaunchShape PieceShape(int items, int kv_heads) {
  return {.blocks_x = static_cast<uint32_t>(items),
          .blocks_y = static_cast<uint32_t>(kv_heads),
          .threads = kPieceThreads};
}

// Rows are padded by 16 bytes, so that the eight rows of a fragment lie in different banks.
template <typename T, int kHeadDim>
struct PieceShared {
  alignas(16) T keys[kTileEntries][kHeadDim + 8];
  alignas(16) T values[kTileEntries][kHeadDim + 8];
};

template <typename T>
__device__ inline uint32_t Pack(T low, T high) {
  return low.bits | static_cast<uint32_t>(high.bits) << 16;
}
template <typename T>
__device__ inline uint32_t PackFloats(float low, float high) {
  return Pack(FromFloat<T>(low), FromFloat<T>(high));
}

// One warp's 16 queries. In lane 4 g + t every array's index r means query g (r = 0) or g + 8.
template <typename T, int kHeadDim>
struct PieceWarp {
  uint32_t q[kHeadDim / 16][4];
  float out[kHeadDim / 8][4];
  float max[2];
  float sum[2];      // of this lane's columns until Finish
  int visible[2];    // 0: no query
  int64_t query[2];  // row * heads + head

  __device__ void Begin(const PagedAttentionArgs& args, const PieceItem& item, int kv_head);
  __device__ void Score(float (&s)[kTileEntries / 8][4],
                        const PieceShared<T, kHeadDim>& tile) const;
  __device__ void Rescale(float (&s)[kTileEntries / 8][4], int first, float scale_log2);
  __device__ void Accumulate(const float (&s)[kTileEntries / 8][4],
                             const PieceShared<T, kHeadDim>& tile);
  __device__ void Store(const PagedAttentionArgs& args);

  __device__ static int Group() { return Lane() / 4; }
  __device__ static int Column() { return Lane() % 4 * 2; }
};

template <typename T, int kHeadDim>
__device__ inline void PieceWarp<T, kHeadDim>::Begin(const PagedAttentionArgs& args,
                                                     const PieceItem& item, int kv_head) {
  const int group = args.heads / args.kv.kv_heads;
  const T* rows[2];
  CATSERVE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const int index = WarpInBlock() * 16 + Group() + r * 8;
    const int row = index / group;
    const int head = kv_head * group + index % group;
    visible[r] = row < item.rows ? item.visible + row : 0;
    query[r] = (item.first_row + int64_t{row}) * args.heads + head;
    rows[r] = static_cast<const T*>(args.q) + (item.first_row + int64_t{row}) * args.q_stride +
              int64_t{head} * kHeadDim;
    max[r] = -INFINITY;
    sum[r] = 0.0f;
  }
  CATSERVE_UNROLL
  for (int k = 0; k < kHeadDim / 16; ++k) {
    CATSERVE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int element = k * 16 + Column() + i / 2 * 8;
      q[k][i] = visible[i % 2] > 0 ? LoadPair(rows[i % 2] + element) : 0u;
    }
  }
  CATSERVE_UNROLL
  for (int n = 0; n < kHeadDim / 8; ++n) {
    CATSERVE_UNROLL
    for (int i = 0; i < 4; ++i) out[n][i] = 0.0f;
  }
}

template <typename T, int kHeadDim>
__device__ inline void PieceWarp<T, kHeadDim>::Score(float (&s)[kTileEntries / 8][4],
                                                     const PieceShared<T, kHeadDim>& tile) const {
  CATSERVE_UNROLL
  for (int n = 0; n < kTileEntries / 8; ++n) {
    s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
    CATSERVE_UNROLL
    for (int k = 0; k < kHeadDim / 16; ++k) {
      const T* const key = &tile.keys[n * 8 + Group()][k * 16 + Column()];
      const uint32_t b[2] = {LoadPair(key), LoadPair(key + 8)};
      MatrixMultiplyAdd<T>(s[n], q[k], b);
    }
  }
}

// Turns scores of entries [first, first + kTileEntries) into weights relative to the new maximum.
template <typename T, int kHeadDim>
__device__ inline void PieceWarp<T, kHeadDim>::Rescale(float (&s)[kTileEntries / 8][4], int first,
                                                       float scale_log2) {
  float largest[2] = {max[0], max[1]};
  CATSERVE_UNROLL
  for (int n = 0; n < kTileEntries / 8; ++n) {
    CATSERVE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int entry = first + n * 8 + Column() + i % 2;
      s[n][i] = entry < visible[i / 2] ? s[n][i] * scale_log2 : -INFINITY;
      largest[i / 2] = fmaxf(largest[i / 2], s[n][i]);
    }
  }
  CATSERVE_UNROLL
  for (int r = 0; r < 2; ++r) {
    largest[r] = MaxOverLanes<4>(largest[r]);
    // A row that has seen nothing yet: 2^(-inf - 0) is 0, 2^(-inf + inf) is no number.
    const float base = largest[r] == -INFINITY ? 0.0f : largest[r];
    const float shrink = Exp2(max[r] - base);
    max[r] = largest[r];
    sum[r] *= shrink;
    CATSERVE_UNROLL
    for (int n = 0; n < kHeadDim / 8; ++n) {
      out[n][2 * r] *= shrink;
      out[n][2 * r + 1] *= shrink;
    }
    CATSERVE_UNROLL
    for (int n = 0; n < kTileEntries / 8; ++n) {
      CATSERVE_UNROLL
      for (int i = 2 * r; i < 2 * r + 2; ++i) sum[r] += s[n][i] = Exp2(s[n][i] - base);
    }
  }
}

template <typename T, int kHeadDim>
__device__ inline void PieceWarp<T, kHeadDim>::Accumulate(const float (&s)[kTileEntries / 8][4],
                                                          const PieceShared<T, kHeadDim>& tile) {
  CATSERVE_UNROLL
  for (int k = 0; k < kTileEntries / 16; ++k) {
    const uint32_t p[4] = {PackFloats<T>(s[2 * k][0], s[2 * k][1]),
                           PackFloats<T>(s[2 * k][2], s[2 * k][3]),
                           PackFloats<T>(s[2 * k + 1][0], s[2 * k + 1][1]),
                           PackFloats<T>(s[2 * k + 1][2], s[2 * k + 1][3])};
    const int entry = k * 16 + Column();
    CATSERVE_UNROLL
    for (int n = 0; n < kHeadDim / 8; ++n) {
      const int element = n * 8 + Group();
      const uint32_t v[2] = {
          Pack(tile.values[entry][element], tile.values[entry + 1][element]),
          Pack(tile.values[entry + 8][element], tile.values[entry + 9][element])};
      MatrixMultiplyAdd<T>(out[n], p, v);
    }
  }
}

template <typename T, int kHeadDim>
__device__ inline void PieceWarp<T, kHeadDim>::Store(const PagedAttentionArgs& args) {
  CATSERVE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const float scale = 1.0f / SumOverLanes<4>(sum[r]);
    if (visible[r] == 0) continue;
    T* const to = static_cast<T*>(args.out) + query[r] / args.heads * args.out_stride +
                  query[r] % args.heads * kHeadDim + Column();
    CATSERVE_UNROLL
    for (int n = 0; n < kHeadDim / 8; ++n) {
      StorePair(to + n * 8, PackFloats<T>(out[n][2 * r] * scale, out[n][2 * r + 1] * scale));
    }
  }
}

// Eight numbers of KV, times their scale, as T.
template <typename T, typename KV>
__device__ inline Words<16> Scaled(const Words<8>& from, float scale) {
  KV stored[8];
  memcpy(stored, &from, sizeof(stored));
  Words<16> numbers;
  CATSERVE_UNROLL
  for (int i = 0; i < 4; ++i) {
    numbers.word[i] =
        PackFloats<T>(ToFloat(stored[2 * i]) * scale, ToFloat(stored[2 * i + 1]) * scale);
  }
  return numbers;
}

// Entries [first, first + kTileEntries) as T; zeros from `end` on, since 0 * NaN is NaN.
template <typename T, typename KV, int kHeadDim>
__device__ inline void StageTile(PieceShared<T, kHeadDim>& tile, const PagedAttentionArgs& args,
                                 const PieceItem& item, int first, int end) {
  constexpr int kVectors = kHeadDim / 8;  // 8 elements at a time
  const KV* const slab = static_cast<const KV*>(args.kv.data);
  for (int i = ThreadX(); i < 2 * kTileEntries * kVectors; i += kPieceThreads) {
    const KvPart part = i < kTileEntries * kVectors ? kKey : kValue;
    const int entry = i / kVectors % kTileEntries;
    const int element = i % kVectors * 8;
    Words<16> numbers = {};
    if (first + entry < end) {
      const int64_t page = args.page_ids[item.first_page + (first + entry) / kPageEntries];
      const int64_t at = EntryIndex(args.kv, page, BlockY(), part, (first + entry) % kPageEntries);
      const KV* const from = slab + at * kHeadDim + element;
      if constexpr (kHasScale<KV>) {
        numbers = Scaled<T, KV>(LoadVector<8>(from), ToFloat(args.kv.scales[at]));
      } else {
        numbers = LoadVector<16>(from);
      }
    }
    StoreVector<16>(&(part == kKey ? tile.keys : tile.values)[entry][element], numbers);
  }
}

// T: BF16 or F16. KV: T, or a type with a scale.
template <typename T, typename KV, int kHeadDim>
__global__ void __launch_bounds__(kPieceThreads)
    PagedAttentionPiece(const __grid_constant__ PagedAttentionArgs args) {
  if (BlockX() >= args.counts[kPieceCount]) return;
  const PieceItem item = args.piece_items[BlockX()];
  using Shared = PieceShared<T, kHeadDim>;
  CATSERVE_SHARED(Shared, tile);
  PieceWarp<T, kHeadDim> warp;
  warp.Begin(args, item, BlockY());
  const int end = item.visible + item.rows - 1;  // what the last row sees
  for (int first = 0; first < end; first += kTileEntries) {
    SyncBlock();
    StageTile<T, KV>(tile, args, item, first, end);
    SyncBlock();
    float s[kTileEntries / 8][4];
    warp.Score(s, tile);
    warp.Rescale(s, first, args.scale_log2);
    warp.Accumulate(s, tile);
  }
  warp.Store(args);
}

}  // namespace catserve::cuda

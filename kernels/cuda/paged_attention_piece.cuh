// Paged attention for pieces: rows of one page list, each of which sees one entry more than the row
// before it (prefill; large groups of query heads), all after the same prefix if there is one. On
// the tensor cores, m16n8k16.
//
//   S = Q K^T,  P = 2^(S log2(e) / sqrt(head_dim) - max),  out = P V / sum P
//
// A block takes one key/value head and up to kPieceQueries queries (row, head of the group); each
// of its four warps owns 16 of them. Keys and values come through shared memory, kTileEntries at a
// time, as operands like the queries; the accumulators of S are, as they lie, the
// operand P. P is rounded, its sum is not: see the table of tolerances in the tests. Numbers
// of 8 bits become operands as they are stored, which loses nothing; their scales go into S and P.
#pragma once

#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/paged_attention.h"

namespace catserve::cuda {

inline constexpr int kPieceThreads = 128;
inline constexpr int kTileEntries = 64;

// What is multiplied, whatever the types of activations and of KV memory: BF16, whose range is that
// of F32 and which holds numbers of 8 bits exactly.
using Operand = BF16;

inline LaunchShape PieceShape(int items, int kv_heads) {
  return {.blocks_x = static_cast<uint32_t>(items),
          .blocks_y = static_cast<uint32_t>(kv_heads),
          .threads = kPieceThreads};
}

// Rows are padded by 16 bytes, so that the eight rows of a fragment lie in different banks.
template <int kHeadDim>
struct PieceShared {
  alignas(16) Operand keys[kTileEntries][kHeadDim + 8];
  alignas(16) Operand values[kTileEntries][kHeadDim + 8];
  float key_scales[kTileEntries];  // for types with a scale
  float value_scales[kTileEntries];
};

__device__ inline uint32_t Pack(Operand low, Operand high) {
  return low.bits | static_cast<uint32_t>(high.bits) << 16;
}
__device__ inline uint32_t PackFloats(float low, float high) {
  return Pack(FromFloat<Operand>(low), FromFloat<Operand>(high));
}

// Two neighbouring activations as operands; and F32 sums as two of theirs.
__device__ inline uint32_t LoadOperands(const void* data, DType type, int64_t at) {
  if (type == kTypeOf<Operand>) return LoadPair(static_cast<const Operand*>(data) + at);
  return PackFloats(LoadActivation(data, type, at), LoadActivation(data, type, at + 1));
}
__device__ inline void StoreSums(void* data, DType type, int64_t at, float low, float high) {
  if (type == kTypeOf<Operand>)
    return StorePair(static_cast<Operand*>(data) + at, PackFloats(low, high));
  StoreActivation(data, type, at, low);
  StoreActivation(data, type, at + 1, high);
}

// One warp's 16 queries. In lane 4 g + t every array's index r means query g (r = 0) or g + 8.
template <typename KV, int kHeadDim>
struct PieceWarp {
  uint32_t q[kHeadDim / 16][4];
  float out[kHeadDim / 8][4];
  float max[2];
  float sum[2];      // of this lane's columns until Finish
  int visible[2];    // 0: no query
  int64_t query[2];  // row * heads + head

  __device__ void Begin(const PagedAttentionArgs& args, const PieceItem& item, int kv_head);
  __device__ void Score(float (&s)[kTileEntries / 8][4], const PieceShared<kHeadDim>& tile) const;
  __device__ void Rescale(float (&s)[kTileEntries / 8][4], int first, float scale_log2);
  __device__ void Accumulate(const float (&s)[kTileEntries / 8][4],
                             const PieceShared<kHeadDim>& tile);
  __device__ void Store(const PagedAttentionArgs& args) const;

  __device__ static int Group() { return Lane() / 4; }
  __device__ static int Column() { return Lane() % 4 * 2; }
};

template <typename KV, int kHeadDim>
__device__ inline void PieceWarp<KV, kHeadDim>::Begin(const PagedAttentionArgs& args,
                                                      const PieceItem& item, int kv_head) {
  const int group = args.heads / args.kv.kv_heads;
  int64_t at[2];
  CATSERVE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const int index = WarpInBlock() * 16 + Group() + r * 8;
    const int row = index / group;
    const int head = kv_head * group + index % group;
    visible[r] = row < item.rows ? item.visible() + row : 0;
    query[r] = (item.first_row + int64_t{row}) * args.heads + head;
    at[r] = (item.first_row + int64_t{row}) * args.q_stride + int64_t{head} * kHeadDim;
    max[r] = -INFINITY;
    sum[r] = 0.0f;
  }
  CATSERVE_UNROLL
  for (int k = 0; k < kHeadDim / 16; ++k) {
    CATSERVE_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int element = k * 16 + Column() + i / 2 * 8;
      q[k][i] = visible[i % 2] > 0 ? LoadOperands(args.q, args.type, at[i % 2] + element) : 0u;
    }
  }
  CATSERVE_UNROLL
  for (int n = 0; n < kHeadDim / 8; ++n) {
    CATSERVE_UNROLL
    for (int i = 0; i < 4; ++i) out[n][i] = 0.0f;
  }
}

template <typename KV, int kHeadDim>
__device__ inline void PieceWarp<KV, kHeadDim>::Score(float (&s)[kTileEntries / 8][4],
                                                      const PieceShared<kHeadDim>& tile) const {
  CATSERVE_UNROLL
  for (int n = 0; n < kTileEntries / 8; ++n) {
    s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
    CATSERVE_UNROLL
    for (int k = 0; k < kHeadDim / 16; ++k) {
      const Operand* const key = &tile.keys[n * 8 + Group()][k * 16 + Column()];
      const uint32_t b[2] = {LoadPair(key), LoadPair(key + 8)};
      MatrixMultiplyAdd<Operand>(s[n], q[k], b);
    }
    if constexpr (kHasScale<KV>) {
      CATSERVE_UNROLL
      for (int i = 0; i < 4; ++i) s[n][i] *= tile.key_scales[n * 8 + Column() + i % 2];
    }
  }
}

// Turns scores of entries [first, first + kTileEntries) into weights relative to the new maximum.
template <typename KV, int kHeadDim>
__device__ inline void PieceWarp<KV, kHeadDim>::Rescale(float (&s)[kTileEntries / 8][4], int first,
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

template <typename KV, int kHeadDim>
__device__ inline void PieceWarp<KV, kHeadDim>::Accumulate(const float (&s)[kTileEntries / 8][4],
                                                           const PieceShared<kHeadDim>& tile) {
  CATSERVE_UNROLL
  for (int k = 0; k < kTileEntries / 16; ++k) {
    const int entry = k * 16 + Column();
    uint32_t p[4];
    CATSERVE_UNROLL
    for (int i = 0; i < 4; ++i) {
      float low = s[2 * k + i / 2][i % 2 * 2];
      float high = s[2 * k + i / 2][i % 2 * 2 + 1];
      if constexpr (kHasScale<KV>) {
        low *= tile.value_scales[entry + i / 2 * 8];
        high *= tile.value_scales[entry + i / 2 * 8 + 1];
      }
      p[i] = PackFloats(low, high);
    }
    CATSERVE_UNROLL
    for (int n = 0; n < kHeadDim / 8; ++n) {
      const int element = n * 8 + Group();
      const uint32_t v[2] = {
          Pack(tile.values[entry][element], tile.values[entry + 1][element]),
          Pack(tile.values[entry + 8][element], tile.values[entry + 9][element])};
      MatrixMultiplyAdd<Operand>(out[n], p, v);
    }
  }
}

template <typename KV, int kHeadDim>
__device__ inline void PieceWarp<KV, kHeadDim>::Store(const PagedAttentionArgs& args) const {
  CATSERVE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const float scale = 1.0f / SumOverLanes<4>(sum[r]);
    if (visible[r] == 0) continue;
    const int64_t to =
        query[r] / args.heads * args.out_stride + query[r] % args.heads * kHeadDim + Column();
    CATSERVE_UNROLL
    for (int n = 0; n < kHeadDim / 8; ++n) {
      const float low = out[n][2 * r] * scale, high = out[n][2 * r + 1] * scale;
      StoreSums(args.out, args.type, to + n * 8, low, high);
    }
  }
}

// Eight numbers as they are stored.
template <typename KV>
__device__ inline Words<16> LoadEight(const KV* from) {
  if constexpr (!kHasScale<KV>) {
    return LoadVector<16>(from);
  } else {
    const Words<8> words = LoadVector<8>(from);
    KV stored[8];
    memcpy(stored, &words, sizeof(stored));
    Words<16> numbers;
    CATSERVE_UNROLL
    for (int i = 0; i < 4; ++i) {
      numbers.word[i] = PackFloats(ToFloat(stored[2 * i]), ToFloat(stored[2 * i + 1]));
    }
    return numbers;
  }
}

// Where entry `e` lies, the prefix's entries being the first.
__device__ inline int64_t PieceEntry(const PagedAttentionArgs& args, const PieceItem& item, int e,
                                     KvPart part) {
  const int32_t* const ids =
      args.page_ids + (e < item.prefix_entries ? item.prefix_page : item.first_page);
  const int in_list = e < item.prefix_entries ? e : e - item.prefix_entries;
  return EntryIndex(args.kv, ids[in_list / kPageEntries], BlockY(), part, in_list % kPageEntries);
}

// Entries [first, first + kTileEntries) as operands; zeros from `end` on, since 0 * NaN is NaN.
template <typename KV, int kHeadDim>
__device__ inline void StageTile(PieceShared<kHeadDim>& tile, const PagedAttentionArgs& args,
                                 const PieceItem& item, int first, int end) {
  constexpr int kVectors = kHeadDim / 8;  // 8 elements at a time
  const KV* const slab = static_cast<const KV*>(args.kv.data);
  for (int i = ThreadX(); i < 2 * kTileEntries * kVectors; i += kPieceThreads) {
    const KvPart part = i < kTileEntries * kVectors ? kKey : kValue;
    const int entry = i / kVectors % kTileEntries;
    const int vector = i % kVectors;
    Words<16> numbers = {};
    float scale = 0.0f;
    if (first + entry < end) {
      const int64_t at = PieceEntry(args, item, first + entry, part);
      numbers = LoadEight(slab + at * kHeadDim + vector * 8);
      if constexpr (kHasScale<KV>) scale = vector == 0 ? ToFloat(args.kv.scales[at]) : 0.0f;
    }
    StoreVector<16>(&(part == kKey ? tile.keys : tile.values)[entry][vector * 8], numbers);
    if (kHasScale<KV> && vector == 0) {
      (part == kKey ? tile.key_scales : tile.value_scales)[entry] = scale;
    }
  }
}

// KV: BF16, or a type with a scale.
template <typename KV, int kHeadDim>
__global__ void __launch_bounds__(kPieceThreads)
    PagedAttentionPiece(const __grid_constant__ PagedAttentionArgs args) {
  if (BlockX() >= args.counts[kPieceCount]) return;
  const PieceItem item = args.piece_items[BlockX()];
  using Shared = PieceShared<kHeadDim>;
  CATSERVE_SHARED(Shared, tile);
  PieceWarp<KV, kHeadDim> warp;
  warp.Begin(args, item, BlockY());
  const int end = item.visible() + item.rows - 1;  // what the last row sees
  for (int first = 0; first < end; first += kTileEntries) {
    SyncBlock();
    StageTile<KV>(tile, args, item, first, end);
    SyncBlock();
    float s[kTileEntries / 8][4];
    warp.Score(s, tile);
    warp.Rescale(s, first, args.scale_log2);
    warp.Accumulate(s, tile);
  }
  warp.Store(args);
}

}  // namespace catserve::cuda

// Paged attention for single rows.
//
//   out[row, h] = sum_e softmax_e(q[row, h] . k[e, h'] / sqrt(head_dim)) v[e, h']
//
// over the entries of an item; h' = h / (heads / kv_heads). The CPU's twin: kernels/cpu/attention.
//
// kSplit = 1: a warp owns (item, kGroup query heads of one key/value head), four such to a block.
// kSplit = 8: eight warps share one, tile by tile, and put their results together in the order of
// the warps. Which one, and how rows are split into items, is attention_plan.h's decision.
#pragma once

#include <type_traits>

#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/paged_attention.h"
#include "kernels/cuda/warp_attention.cuh"

namespace catserve::cuda {

template <int kSplit>
inline constexpr int kDecodeWarps = kSplit == 1 ? 4 : kSplit;
template <int kSplit>
inline constexpr int kDecodeThreads = kDecodeWarps<kSplit>* kWarpThreads;

// Blocks that a multiprocessor shall hold at once; 0 leaves the registers to the compiler. With two
// heads of 16-bit entries to a warp it would keep 8 bytes on a stack for sm_80 and sm_89, and with
// E4M3 two at a time for sm_80.
template <class Layout, int kGroup, int kSplit>
inline constexpr int kDecodeBlocks =
    kSplit == 8 && std::is_same_v<Layout, NarrowLayout<E4M3>>      ? 3
    : kGroup != 2 || kSplit != 1 || kHasScale<typename Layout::KV> ? 0
    : Layout::kHeadDim == 64                                       ? 5
                                                                   : 3;

template <int kGroup, int kSplit>
LaunchShape DecodeShape(int items, int heads) {
  const int64_t groups = DivideUp(heads / kGroup, kDecodeWarps<kSplit> / kSplit);
  return {.blocks_x = static_cast<uint32_t>(items),
          .blocks_y = static_cast<uint32_t>(groups),
          .threads = kDecodeThreads<kSplit>};
}

// The page ids of a range, 32 to a load: lane i holds that of page `base` + i.
struct PageCursor {
  const int32_t* ids;
  int pages;
  int base;
  int32_t id;

  __device__ PageCursor(const int32_t* ids, int pages)
      : ids(ids), pages(pages), base(-kWarpThreads), id(0) {}

  // `page` never falls, and is the same in all lanes.
  __device__ int64_t Id(int page) {
    if (page - base >= kWarpThreads) {
      base = page;
      id = base + Lane() < pages ? ids[base + Lane()] : 0;
    }
    return Shuffle(id, page - base);
  }
};

// Streams every kSplit-th tile of the item's entries, from tile `part` on, through `state`.
template <class Layout, int kGroup, int kSplit>
__device__ inline void AttendToItem(WarpAttention<Layout, kGroup>& state,
                                    const PagedAttentionArgs& args, const DecodeItem& item,
                                    int kv_head, int part) {
  using KV = typename Layout::KV;
  const int head_dim = Layout::kExact ? Layout::kHeadDim : args.kv.head_dim;
  const KV* const slab = static_cast<const KV*>(args.kv.data);
  const int pages = (item.entries + kPageEntries - 1) / kPageEntries;
  PageCursor cursor(args.page_ids + item.first_page, pages);
  for (int first = part * Layout::kTile; first < item.entries; first += kSplit * Layout::kTile) {
    const int64_t page = cursor.Id(first / kPageEntries);
    const int in_page = first % kPageEntries;
    const int64_t key = EntryIndex(args.kv, page, kv_head, kKey, in_page);
    const int64_t value = EntryIndex(args.kv, page, kv_head, kValue, in_page);
    const int seen = item.entries - first;
    Tile<Layout> tile;
    tile.Load({.keys = slab + key * head_dim,
               .values = slab + value * head_dim,
               .key_scales = kHasScale<KV> ? args.kv.scales + key : nullptr,
               .value_scales = kHasScale<KV> ? args.kv.scales + value : nullptr,
               .stride = head_dim,
               .entries = seen,
               .head_dim = head_dim});
    state.Attend(tile, seen);
  }
  state.Finish();
}

template <class Layout, int kGroup, int kSplit>
struct SplitResults {
  float out[kSplit][kGroup][Layout::kHeadDim];
  float max[kSplit][kGroup];
  float sum[kSplit][kGroup];
};

// Puts the warps' results together, in the order of the warps, into every warp's state.
template <class Layout, int kGroup, int kSplit>
__device__ inline void MergeWarps(WarpAttention<Layout, kGroup>& state,
                                  SplitResults<Layout, kGroup, kSplit>& shared) {
  const auto element = [](int j) {
    return Layout::Element(j / Layout::kVector) + j % Layout::kVector;
  };
  const int warp = WarpInBlock();
  CATSERVE_UNROLL
  for (int g = 0; g < kGroup; ++g) {
    CATSERVE_UNROLL
    for (int j = 0; j < Layout::kElements; ++j) {
      if (Lane() < Layout::kLanes) shared.out[warp][g][element(j)] = state.out[g][j];
    }
    if (Lane() == 0) shared.max[warp][g] = state.max[g];
    if (Lane() == 0) shared.sum[warp][g] = state.sum[g];
  }
  SyncBlock();
  CATSERVE_UNROLL
  for (int g = 0; g < kGroup; ++g) {
    float largest = -INFINITY;
    for (int w = 0; w < kSplit; ++w) largest = fmaxf(largest, shared.max[w][g]);
    state.max[g] = largest;
    state.sum[g] = 0.0f;
    CATSERVE_UNROLL
    for (int j = 0; j < Layout::kElements; ++j) state.out[g][j] = 0.0f;
    for (int w = 0; w < kSplit; ++w) {
      if (shared.max[w][g] == -INFINITY) continue;  // a warp for which no tile was left
      const float shrink = Exp2(shared.max[w][g] - largest);
      state.sum[g] = fmaf(shrink, shared.sum[w][g], state.sum[g]);
      CATSERVE_UNROLL
      for (int j = 0; j < Layout::kElements; ++j) {
        state.out[g][j] = fmaf(shrink, shared.out[w][g][element(j)], state.out[g][j]);
      }
    }
  }
}

// The lanes of one entry write the whole row: kGroup heads one after another.
template <class Layout, int kGroup>
__device__ inline void StoreRow(const PagedAttentionArgs& args,
                                const WarpAttention<Layout, kGroup>& state, int64_t at,
                                int head_dim) {
  CATSERVE_UNROLL
  for (int g = 0; g < kGroup; ++g) {
    const float scale = state.sum[g] > 0.0f ? 1.0f / state.sum[g] : 0.0f;
    CATSERVE_UNROLL
    for (int j = 0; j < Layout::kElements; ++j) {
      const int element = Layout::Element(j / Layout::kVector) + j % Layout::kVector;
      if (!Layout::kExact && element >= head_dim) continue;
      StoreActivation(args.out, args.type, at + g * head_dim + element, state.out[g][j] * scale);
    }
  }
}

// The same of a partial result, whose heads begin with `slot_head`.
template <class Layout, int kGroup>
__device__ inline void StorePartial(const PagedAttentionArgs& args,
                                    const WarpAttention<Layout, kGroup>& state, int64_t slot_head,
                                    int head_dim) {
  CATSERVE_UNROLL
  for (int g = 0; g < kGroup; ++g) {
    CATSERVE_UNROLL
    for (int j = 0; j < Layout::kElements; ++j) {
      const int element = Layout::Element(j / Layout::kVector) + j % Layout::kVector;
      if (!Layout::kExact && element >= head_dim) continue;
      args.partial_out[(slot_head + g) * head_dim + element] = state.out[g][j];
    }
    if (Lane() == 0) {
      args.partial_max_sum[(slot_head + g) * 2] = state.max[g];
      args.partial_max_sum[(slot_head + g) * 2 + 1] = state.sum[g];
    }
  }
}

template <class Layout, int kGroup>
__device__ inline void StoreItem(const WarpAttention<Layout, kGroup>& state,
                                 const PagedAttentionArgs& args, const DecodeItem& item,
                                 int first_head) {
  const int head_dim = Layout::kExact ? Layout::kHeadDim : args.kv.head_dim;
  if (item.partial >= 0) {
    const int64_t slot_head = item.partial * int64_t{args.heads} + first_head;
    return StorePartial(args, state, slot_head, head_dim);
  }
  StoreRow(args, state, item.row * args.out_stride + int64_t{first_head} * head_dim, head_dim);
}

template <class Layout, int kGroup, int kSplit>
__global__ void __launch_bounds__(kDecodeThreads<kSplit>, kDecodeBlocks<Layout, kGroup, kSplit>)
    PagedAttentionDecode(const __grid_constant__ PagedAttentionArgs args) {
  if (BlockX() >= args.counts[kDecodeCount]) return;
  const DecodeItem item = args.decode_items[BlockX()];
  const int per_block = kDecodeWarps<kSplit> / kSplit;
  const int first_head = (BlockY() * per_block + WarpInBlock() / kSplit) * kGroup;
  const int kv_head = first_head / (args.heads / args.kv.kv_heads);
  const int head_dim = Layout::kExact ? Layout::kHeadDim : args.kv.head_dim;
  const int part = WarpInBlock() % kSplit;

  WarpAttention<Layout, kGroup> state;
  state.Clear();
  if (first_head < args.heads) {  // the same for all lanes of a warp, and for all that share a row
    const int64_t at = item.row * args.q_stride + int64_t{first_head} * head_dim;
    state.LoadQueries(args.q, args.type, at, head_dim, args.scale_log2);
    AttendToItem<Layout, kGroup, kSplit>(state, args, item, kv_head, part);
  }
  if constexpr (kSplit > 1) {
    using Results = SplitResults<Layout, kGroup, kSplit>;
    CATSERVE_SHARED(Results, shared);
    MergeWarps<Layout, kGroup, kSplit>(state, shared);
  }
  if (first_head < args.heads && part == 0 && Lane() < Layout::kLanes) {
    StoreItem(state, args, item, first_head);
  }
}

}  // namespace catserve::cuda

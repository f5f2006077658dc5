// Attention within blocks of rows, both directions: the compressor's chunks, of any sizes, in one
// launch. The entries of a row are the keys and values of the other rows of its block, read where
// the matrix product left them. A warp to a (row, query head); a chunk's rows are few, so its keys
// and values stay in the nearest cache. The CPU's twin: BlockAttention of kernels/cpu/attention.cc.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/warp_attention.cuh"

namespace catserve::cuda {

inline constexpr int kBlockAttentionWarps = 4;
inline constexpr int kBlockAttentionThreads = kBlockAttentionWarps * kWarpThreads;

inline LaunchShape BlockAttentionShape(const BlockAttentionArgs& args, int rows) {
  return {.blocks_x = static_cast<uint32_t>(rows),
          .blocks_y = static_cast<uint32_t>(DivideUp(args.heads, kBlockAttentionWarps)),
          .threads = kBlockAttentionThreads};
}

template <typename T, class Layout>
__global__ void __launch_bounds__(kBlockAttentionThreads)
    BlockAttention(const __grid_constant__ BlockAttentionArgs args) {
  const int head = BlockY() * kBlockAttentionWarps + WarpInBlock();
  if (head >= args.heads) return;
  const int head_dim = Layout::kExact ? Layout::kHeadDim : args.head_dim;
  const int kv_head = head / (args.heads / args.kv_heads);
  const BlockRow block = args.blocks[BlockX()];
  const T* const qkv = static_cast<const T*>(args.qkv);
  const T* const keys = qkv + block.first * args.stride + int64_t{args.heads + kv_head} * head_dim;
  const T* const values = keys + int64_t{args.kv_heads} * head_dim;
  WarpAttention<Layout, 1> state;
  state.Clear();
  state.LoadQueries(qkv, kTypeOf<T>, block.row * args.stride + int64_t{head} * head_dim, head_dim,
                    args.scale_log2);
  for (int first = 0; first < block.count; first += Layout::kTile) {
    Tile<Layout> tile;
    tile.Load({.keys = keys + first * args.stride,
               .values = values + first * args.stride,
               .key_scales = nullptr,
               .value_scales = nullptr,
               .stride = args.stride,
               .entries = block.count - first,
               .head_dim = head_dim});
    state.Attend(tile, block.count - first);
  }
  state.Finish();
  if (Lane() >= Layout::kLanes) return;
  T* const out = static_cast<T*>(args.out) + block.row * args.out_stride + int64_t{head} * head_dim;
  CATSERVE_UNROLL
  for (int j = 0; j < Layout::kElements; ++j) {
    const int element = Layout::Element(j / Layout::kVector) + j % Layout::kVector;
    if (element < head_dim) out[element] = FromFloat<T>(state.out[0][j] / state.sum[0]);
  }
}

}  // namespace catserve::cuda

// Puts the partial results of one row's ranges together:
//
//   out = sum_s 2^(m_s - m) o_s / sum_s 2^(m_s - m) l_s,  m = max_s m_s
//
// in ascending order of the slots, so the result does not depend on which block came first.
#pragma once

#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/paged_attention.h"

namespace catserve::cuda {

inline constexpr int kCombineWarps = 4;
inline constexpr int kCombineThreads = kCombineWarps * kWarpThreads;

// A warp for each (row, query head).
inline LaunchShape CombineShape(int items, int heads) {
  return {.blocks_x = static_cast<uint32_t>(items),
          .blocks_y = static_cast<uint32_t>(DivideUp(heads, kCombineWarps)),
          .threads = kCombineThreads};
}

// REQUIRES: every slot of an item saw an entry.
__global__ void __launch_bounds__(kCombineThreads)
    AttentionCombine(const __grid_constant__ PagedAttentionArgs args) {
  if (BlockX() >= args.counts[kCombineCount]) return;
  const CombineItem item = args.combine_items[BlockX()];
  const int head = BlockY() * kCombineWarps + WarpInBlock();
  if (head >= args.heads) return;
  const int64_t first = item.first_slot * int64_t{args.heads} + head;
  float max = -INFINITY;
  for (int s = 0; s < item.slots; ++s) {
    max = fmaxf(max, args.partial_max_sum[(first + int64_t{s} * args.heads) * 2]);
  }
  const int64_t out_head = item.row * args.out_stride + int64_t{head} * args.kv.head_dim;
  for (int d = Lane(); d < args.kv.head_dim; d += kWarpThreads) {
    float out = 0.0f;
    float sum = 0.0f;
    for (int s = 0; s < item.slots; ++s) {
      const int64_t slot = first + int64_t{s} * args.heads;
      const float shrink = Exp2(args.partial_max_sum[slot * 2] - max);
      sum = fmaf(shrink, args.partial_max_sum[slot * 2 + 1], sum);
      out = fmaf(shrink, args.partial_out[slot * args.kv.head_dim + d], out);
    }
    StoreActivation(args.out, args.type, out_head + d, out / sum);
  }
}

}  // namespace catserve::cuda

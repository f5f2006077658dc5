// Reductions and scans over a block of kThreads threads, in a fixed order.
#pragma once

#include "kernels/cuda/device.h"

namespace catserve::cuda {

// Scratch of one kernel, used by one call after the other.
struct BlockScratch {
  uint64_t warps[kWarpThreads];
};

struct Add {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Larger {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

template <typename T>
__device__ inline void PutIn(BlockScratch& scratch, int warp, T value) {
  memcpy(&scratch.warps[warp], &value, sizeof(value));
}
template <typename T>
__device__ inline T TakeFrom(const BlockScratch& scratch, int warp) {
  T value;
  memcpy(&value, &scratch.warps[warp], sizeof(value));
  return value;
}

// `op` over all threads' values; every thread gets it. All threads must call.
template <int kThreads, typename T, class Op>
__device__ inline T BlockReduce(T value, Op op, BlockScratch& scratch) {
  constexpr int kWarps = kThreads / kWarpThreads;
  CATSERVE_UNROLL
  for (int step = 1; step < kWarpThreads; step *= 2) value = op(value, ShuffleXor(value, step));
  if (Lane() == 0) PutIn(scratch, WarpInBlock(), value);
  SyncBlock();
  T result = TakeFrom<T>(scratch, 0);
  for (int warp = 1; warp < kWarps; ++warp) result = op(result, TakeFrom<T>(scratch, warp));
  SyncBlock();
  return result;
}

// The sum over all threads before this one, and in `total` that over all.
template <int kThreads>
__device__ inline uint64_t ExclusiveScan(uint64_t value, uint64_t& total, BlockScratch& scratch) {
  uint64_t up_to_lane = value;
  CATSERVE_UNROLL
  for (int step = 1; step < kWarpThreads; step *= 2) {
    const uint64_t before = Shuffle(up_to_lane, Lane() < step ? 0 : Lane() - step);
    if (Lane() >= step) up_to_lane += before;
  }
  if (Lane() == kWarpThreads - 1) scratch.warps[WarpInBlock()] = up_to_lane;
  SyncBlock();
  uint64_t before_warp = 0;
  total = 0;
  for (int warp = 0; warp < kThreads / kWarpThreads; ++warp) {
    if (warp < WarpInBlock()) before_warp += scratch.warps[warp];
    total += scratch.warps[warp];
  }
  SyncBlock();
  return before_warp + up_to_lane - value;
}

}  // namespace catserve::cuda

// out[i] = the row that rows[i] names, as F32: tokens from the device's history, summaries,
// separators and position rows of one mixed batch, or the rows that need logits.
// The CPU's twin: CpuBackend::Gather. Indices were checked when the step was planned.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/operations.h"

namespace catserve::cuda {

inline constexpr int kGatherThreads = 128;

inline LaunchShape GatherShape(int items) {
  return {.blocks_x = static_cast<uint32_t>(items), .threads = kGatherThreads};
}

template <typename T>
__device__ inline void WidenRow(float* out, const GatherTable& table, int64_t row, int width) {
  const T* const from = static_cast<const T*>(table.data) + row * table.stride;
  for (int i = ThreadX(); i < width; i += kGatherThreads) out[i] = ToFloat(from[i]);
}

// Not a template: the tables of one batch have types of their own.
__global__ void __launch_bounds__(kGatherThreads) Gather(const __grid_constant__ GatherArgs args) {
  if (BlockX() >= *args.count) return;
  const GatherItem item = args.items[BlockX()];
  const int64_t row = item.via_history != 0 ? args.history[item.index] : item.index;
  const GatherTable& table = args.tables[item.table];
  float* const out = args.out + BlockX() * args.out_stride;
  if (table.type == DType::kF32) WidenRow<float>(out, table, row, args.width);
  if (table.type == DType::kBF16) WidenRow<BF16>(out, table, row, args.width);
  if (table.type == DType::kF16) WidenRow<F16>(out, table, row, args.width);
}

}  // namespace catserve::cuda

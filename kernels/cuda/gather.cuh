// out[i] = the row that rows[i] names, as F32: tokens from the device's history, summaries,
// separators and position rows of one mixed batch, or the rows that need logits.
// The CPU's twin: CpuBackend::Gather. Indices were checked when the step was planned.
#pragma once

#include "kernels/cuda/device.h"

namespace catserve::cuda {

inline constexpr int kGatherThreads = 128;
inline constexpr int kGatherTablesMax = 8;

enum class TableType : int32_t { kF32, kBF16, kF16 };

struct GatherTable {
  const void* data;
  int64_t stride;  // elements from row to row
  TableType type;
};

struct GatherItem {
  int32_t table;
  int32_t index;        // of the row; or of history, which holds it
  int32_t via_history;  // 0 or 1
};

struct GatherArgs {
  float* out;  // [count, width], rows out_stride elements apart
  int64_t out_stride;
  int32_t width;
  GatherTable tables[kGatherTablesMax];
  const int32_t* history;
  const GatherItem* items;
  const int32_t* count;  // blocks beyond it return at once
};

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
  if (table.type == TableType::kF32) WidenRow<float>(out, table, row, args.width);
  if (table.type == TableType::kBF16) WidenRow<BF16>(out, table, row, args.width);
  if (table.type == TableType::kF16) WidenRow<F16>(out, table, row, args.width);
}

}  // namespace catserve::cuda

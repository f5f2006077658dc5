// What the kernels of paged attention share: the work list, which the host makes
// (attention_plan.h), and where everything lies on the device.
#pragma once

#include <cstdint>

#include "kernels/cuda/kv_slab.h"
#include "kernels/host_device.h"
#include "kernels/tensor.h"

namespace catserve::cuda {

// One row over one range of entries. A row with more than one (a long row, or a prefix and its own
// entries) leaves partial results, which a CombineItem puts together.
struct DecodeItem {
  int32_t row;         // of q and out
  int32_t first_page;  // index into page_ids: the range starts with this page
  int32_t entries;     // of the range; 0: the row sees nothing and gets zeros
  int32_t partial;     // slot of the partial result, or -1: this range is the whole row
};

struct CombineItem {
  int32_t row;
  int32_t first_slot;
  int32_t slots;
};

// Rows [first_row, first_row + rows) of one page list: row i sees the prefix, which all of them
// share, and then the list's first `entries` + i entries.
struct PieceItem {
  int32_t first_row;
  int32_t rows;  // (rows * query heads of a key/value head) <= kPieceQueries
  int32_t prefix_page;
  int32_t prefix_entries;
  int32_t first_page;
  int32_t entries;  // with the prefix > 0

  // Of the first row, the prefix counted.
  CATSERVE_HOST_DEVICE int visible() const { return prefix_entries + entries; }
};
inline constexpr int kPieceQueries = 64;

// All pointers are to device memory. Counts lie there too: a replayed graph launches blocks for its
// bucket, and those beyond the count return at once.
struct PagedAttentionArgs {
  const void* q;  // [rows, heads * head_dim], rows q_stride elements apart
  void* out;      // [rows, heads * head_dim], rows out_stride elements apart
  DType type;     // of both: F32, BF16 or F16
  int64_t q_stride;
  int64_t out_stride;
  KvSlab kv;
  const int32_t* page_ids;
  int32_t heads;
  float scale_log2;  // log2(e) / sqrt(head_dim)
  const DecodeItem* decode_items;
  const PieceItem* piece_items;
  const CombineItem* combine_items;
  const int32_t* counts;   // of decode, piece and combine items
  float* partial_out;      // [slots, heads, head_dim]
  float* partial_max_sum;  // [slots, heads, 2]
  bool operator==(const PagedAttentionArgs&) const = default;
};
enum : int { kDecodeCount = 0, kPieceCount = 1, kCombineCount = 2, kCounts = 3 };

}  // namespace catserve::cuda

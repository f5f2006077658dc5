// From what each row of a step sees to the work lists of the attention kernels: which kernel a row
// goes to, how long rows are split, in which order the work is dealt out. Pure: no CUDA, no state.
//
// Rows that follow each other in one page list (prefill, the summary and separator of a closed
// chunk) become pieces for the tensor cores where there are enough of them; all others go row by
// row. There a row with a prefix has two ranges. Splitting costs partial results and a second
// kernel, so a row is split only while the work fills less than half a wave of the device.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/paged_attention.h"

namespace catserve::cuda {

struct Device {
  int multiprocessors = 132;
  // Blocks of the decode kernel that one multiprocessor holds, for each kSplit.
  int whole_blocks = 8;
  int split_blocks = 4;
};

struct AttentionLayer {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  bool tuned = true;          // the decode kernel knows the size of these heads
  bool tensor_cores = false;  // pieces may be computed with 16 bits
};

struct AttentionPlan {
  int group = 1;        // query heads that one warp takes: kGroup of the decode kernel
  int split_warps = 1;  // kSplit: 8 where there are too few (row, head) pairs for a warp each
  int slots = 0;        // of partial results
  std::vector<DecodeItem> decode;  // longest first: the tail of a launch is then short
  std::vector<PieceItem> pieces;   // longest first
  std::vector<CombineItem> combines;
};

// REQUIRES: head counts as backend.h has them. row_bucket >= rows.size(): the rows that a graph was
// captured for, on which split_warps depends.
AttentionPlan PlanAttention(std::span<const AttentionRow> rows, int row_bucket,
                            const AttentionLayer& layer, const Device& device);

// Query heads that a warp takes: what divides the group of a key/value head, at most 4. Where the
// kernel is tuned, that is; else 1.
int HeadsPerWarp(const AttentionLayer& layer);
int SplitWarps(int row_bucket, const AttentionLayer& layer, const Device& device);

}  // namespace catserve::cuda

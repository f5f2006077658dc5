// Which CUDA graphs a server captures at start, and what memory their steps need beside weights and
// pages: decided before the pool of pages is sized, since all of it is taken at start. Pure.
//
// A graph is captured for a bucket of rows; a step runs in the smallest that holds its rows, what
// is left over being padding. Graphs of a step are launched one after another (decoder; layers of
// the compressor; projections), so their numbers add and do not multiply.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/attention_plan.h"

namespace catserve::cuda {

// 1, 2, 4, 8, then ever further apart: padding is less than half of a step, and less than a fifth
// above 128 rows.
std::span<const int> RowBuckets();
inline constexpr int kGraphRowsMax = 512;

// The smallest bucket of at least `rows`. REQUIRES: 1 <= rows <= kGraphRowsMax; a step of more rows
// runs without a graph.
int RowBucket(int rows);

// A step of the decoder without pieces of prompts.
struct DecoderGraphKey {
  int row_bucket = 0;
  bool combines = false;    // some row is split over blocks
  bool all_greedy = false;  // nobody needs more than the likeliest token
  auto operator<=>(const DecoderGraphKey&) const = default;
};

// What a model needs to know for its sizes.
struct DecoderShape {
  AttentionLayer attention;
  int width = 0;
  int feed_forward = 0;
  int vocab_columns = 0;  // of the logits, padding included
  int activation_bytes = 2;
  int64_t context = 0;  // tokens, at most
};

// Every key that a step of at most rows_max rows can have, ascending.
std::vector<DecoderGraphKey> DecoderGraphKeys(int rows_max);

// Bytes of one step's scratch memory, each part rounded up to 256.
struct StepScratch {
  int64_t residual = 0;
  int64_t activations =
      0;  // qkv, attention's output and the feed-forward's, which follow each other
  int64_t logits = 0;
  int64_t sampling = 0;
  int64_t partials = 0;
  int64_t work_lists = 0;  // uploaded before the step

  int64_t total() const {
    return residual + activations + logits + sampling + partials + work_lists;
  }
};
StepScratch ScratchOf(const DecoderShape& shape, int row_bucket, const Device& device);

}  // namespace catserve::cuda

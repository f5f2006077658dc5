#include "kernels/cuda/graph_plan.h"

#include <algorithm>
#include <array>

#include "kernels/check.h"
#include "kernels/cuda/launch_shape.h"

namespace catserve::cuda {
namespace {

constexpr std::array<int, 24> kBuckets = {1,   2,   4,   8,   16,  24,  32,  48,
                                          64,  80,  96,  128, 160, 192, 224, 256,
                                          288, 320, 352, 384, 416, 448, 480, kGraphRowsMax};

// What cudaMalloc aligns to, and more than any load of ours asks for.
int64_t Aligned(int64_t bytes) { return DivideUp(bytes, 256) * 256; }

}  // namespace

std::span<const int> RowBuckets() { return kBuckets; }

int RowBucket(int rows) {
  CATSERVE_CHECK(rows >= 1 && rows <= kGraphRowsMax)
      << rows << " rows: graphs hold 1 to " << kGraphRowsMax << ", run the step without one";
  return *std::lower_bound(kBuckets.begin(), kBuckets.end(), rows);
}

std::vector<DecoderGraphKey> DecoderGraphKeys(int rows_max) {
  std::vector<DecoderGraphKey> keys;
  const int last = RowBucket(rows_max);
  for (const int bucket : kBuckets) {
    if (bucket > last) break;
    for (const bool combines : {false, true}) {
      for (const bool all_greedy : {false, true}) keys.push_back({bucket, combines, all_greedy});
    }
  }
  return keys;
}

StepScratch ScratchOf(const DecoderShape& shape, int row_bucket, const Device& device) {
  const AttentionLayer& attention = shape.attention;
  const int64_t rows = row_bucket;
  const int64_t heads_width = int64_t{attention.heads} * attention.head_dim;
  const int64_t kv_width = int64_t{attention.kv_heads} * attention.head_dim;
  const int64_t slots = AttentionItemsMax(row_bucket, shape.context, attention, device);
  // After its products with the weights nothing of one half of a layer is needed by the other.
  const int64_t attention_width = 2 * heads_width + 2 * kv_width;
  const int64_t feed_forward_width = 3 * int64_t{shape.feed_forward};
  const int64_t widest = shape.width + std::max(attention_width, feed_forward_width);
  const int64_t pages = rows * DivideUp(shape.context, kPageEntries);
  return {.residual = Aligned(rows * shape.width * 4),
          .activations = Aligned(rows * widest * shape.activation_bytes),
          .logits = Aligned(rows * shape.vocab_columns * 4),
          .sampling = Aligned(rows * shape.vocab_columns * 8),  // z and counts of sample.cuh
          .partials = Aligned(slots * attention.heads * (attention.head_dim + 2) * 4),
          .work_lists = Aligned(slots * static_cast<int64_t>(sizeof(DecodeItem)) +
                                rows * static_cast<int64_t>(sizeof(CombineItem)) + pages * 4)};
}

}  // namespace catserve::cuda

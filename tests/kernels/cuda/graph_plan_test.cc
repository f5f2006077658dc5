// Graph keys and sizes, for the published shape: 12 layers of width 2048, 32 heads of 64,
// feed-forward 5632, 50,257 tokens, context 4,096.
#include "kernels/cuda/graph_plan.h"

#include <algorithm>
#include <set>

#include "gtest/gtest.h"

namespace catserve::cuda {
namespace {

constexpr DecoderShape kPublished{
    .attention = {.heads = 32, .kv_heads = 32, .head_dim = 64, .tensor_cores = true},
    .width = 2048,
    .feed_forward = 5632,
    .vocab_columns = 50'304,
    .context = 4096};

TEST(RowBuckets, HoldTheirRowsWithLittlePadding) {
  int before = 0;
  for (int rows = 1; rows <= kGraphRowsMax; ++rows) {
    const int bucket = RowBucket(rows);
    ASSERT_GE(bucket, rows);
    ASSERT_GE(bucket, before);
    ASSERT_EQ(RowBucket(bucket), bucket);
    ASSERT_LT(bucket - rows, rows > 128 ? bucket / 5 : (bucket + 1) / 2) << rows;
    before = bucket;
  }
  EXPECT_TRUE(std::is_sorted(RowBuckets().begin(), RowBuckets().end()));
  EXPECT_EQ(RowBuckets().back(), kGraphRowsMax);
}

using RowBucketsDeathTest = ::testing::Test;

TEST(RowBucketsDeathTest, MoreRowsThanAGraphHoldsRunWithoutOne) {
  EXPECT_DEATH(RowBucket(kGraphRowsMax + 1), "run the step without one");
  EXPECT_DEATH(RowBucket(0), "run the step without one");
}

TEST(DecoderGraphs, AreFewAndCoverEveryStep) {
  const auto keys = DecoderGraphKeys(kGraphRowsMax);
  const std::set<DecoderGraphKey> distinct(keys.begin(), keys.end());
  EXPECT_EQ(distinct.size(), keys.size());
  EXPECT_LE(keys.size(), 100);
  for (int rows = 1; rows <= kGraphRowsMax; ++rows) {
    EXPECT_TRUE(distinct.contains({RowBucket(rows), true, false}));
    EXPECT_TRUE(distinct.contains({RowBucket(rows), false, true}));
  }
  EXPECT_EQ(DecoderGraphKeys(1).size(), 4);
}

TEST(StepScratch, OfThePublishedShapeFitsItsBudget) {
  const StepScratch scratch = ScratchOf(kPublished, kGraphRowsMax, {});
  EXPECT_EQ(scratch.logits, 512LL * 50'304 * 4);
  EXPECT_EQ(scratch.residual, 512LL * 2048 * 4);
  EXPECT_LT(scratch.total(), 384LL << 20);
  EXPECT_EQ(scratch.total() % 256, 0);
}

TEST(StepScratch, GrowsWithTheRowsAndNeedsMoreThan32Bits) {
  int64_t before = 0;
  for (const int bucket : RowBuckets()) {
    const int64_t bytes = ScratchOf(kPublished, bucket, {}).total();
    EXPECT_GT(bytes, before) << bucket;
    before = bytes;
  }
  DecoderShape large = kPublished;
  large.vocab_columns = 1 << 21;
  EXPECT_GT(ScratchOf(large, kGraphRowsMax, {}).sampling, int64_t{1} << 32);
}

TEST(StepScratch, HoldsTheWorkListsOfAnyPlan) {
  for (const int bucket : {1, 8, 320}) {
    std::vector<AttentionRow> rows;
    for (int i = 0; i < bucket; ++i) {
      rows.push_back({.page = i * 256, .entries = static_cast<int32_t>(kPublished.context)});
    }
    const AttentionPlan plan = PlanAttention(rows, bucket, kPublished.attention, {});
    const StepScratch scratch = ScratchOf(kPublished, bucket, {});
    EXPECT_LE(plan.slots * 32LL * (64 + 2) * 4, scratch.partials);
    EXPECT_LE(static_cast<int64_t>(plan.decode.size() * sizeof(DecodeItem) +
                                   plan.combines.size() * sizeof(CombineItem)) +
                  bucket * 256LL * 4,
              scratch.work_lists);
  }
}

}  // namespace
}  // namespace catserve::cuda

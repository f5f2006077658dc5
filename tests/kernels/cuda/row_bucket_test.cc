// The rows that parts of steps are padded to.
#include "kernels/cuda/row_bucket.h"

#include <algorithm>

#include "gtest/gtest.h"

namespace catserve::cuda {
namespace {

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

}  // namespace
}  // namespace catserve::cuda

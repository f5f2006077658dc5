// The arithmetic of catctl plan.
#include "server/catctl/sizing.h"

#include <gtest/gtest.h>

namespace catserve {
namespace {

TEST(Sizing, ReplicasCarryTheLoadWithRoomForBursts) {
  const OfferedLoad load{.requests_per_second = 20,
                         .prompt_tokens = 1024,
                         .generated_tokens = 1024,
                         .utilisation = 0.5};
  const MeasuredReplica measured{.streams = 16, .requests_per_second = 8, .request_seconds = 1.5};
  const ModelGeometry model{.kind = ModelKind::kCat, .bytes_per_entry = 100};
  const Sizing sizing = SizeFor(load, measured, 16, model);
  EXPECT_EQ(sizing.replicas, 5);  // 4 requests/s of each may be used
  EXPECT_DOUBLE_EQ(sizing.concurrent, 4 * 1.5);
  // Before the last of 128 chunks closes: 127 summaries, the first, the separator and 15 tokens.
  EXPECT_EQ(sizing.sequence_bytes, 9 * kPageEntries * 100);
  EXPECT_EQ(sizing.memory_bytes, 16 * sizing.sequence_bytes);
}

}  // namespace
}  // namespace catserve

// What a request is told of its own way: the pieces it was read in, and its share of the time.
#include <gtest/gtest.h>

#include "tests/engine/schedule/driver.h"

namespace catserve {
namespace {

const ScheduleLimits kRoomy{.slots = 8, .kv_pages = 200, .step_rows_max = 256};

TEST(Usage, TimeForChunksIsSharedByTheTokensCompressed) {
  Driver driver(CatShape(), kRoomy);
  const RequestKey fine = driver.Add(Generate(Words(40, 1), 4, 30));
  const RequestKey coarse = driver.Add(Generate(Words(70, 2), 16, 30));
  Request score = Score(Words(50, 3), 8);
  score.bypass_prefix_cache = true;
  const RequestKey scored = driver.Add(score);
  driver.Run();
  for (const auto& [key, chunk_size] :
       std::map<RequestKey, int>{{fine, 4}, {coarse, 16}, {scored, 8}}) {
    const Usage& usage = driver.stories[key].finished->usage;
    ASSERT_GT(usage.chunks_compressed, 3);
    EXPECT_EQ(usage.compressing,
              absl::FromChrono(usage.chunks_compressed * chunk_size * kFakeTokenTime));
  }
}

TEST(Usage, ALongPromptIsReadInPieces) {
  Driver driver(DenseShape(),
                {.slots = 2, .kv_pages = 50, .step_rows_max = 64, .step_tokens_max = 40});
  EXPECT_EQ(driver.Tell(Generate(Words(100), 0, 5)).finished->usage.prefill_pieces, 3);
  EXPECT_EQ(driver.Tell(Generate(Words(30, 5), 0, 5)).finished->usage.prefill_pieces, 1);
  const Story scored = driver.Tell(Score(Words(100, 9), 0));
  EXPECT_GT(scored.pieces, 1);
  EXPECT_EQ(scored.finished->usage.prefill_pieces, scored.pieces);
}

}  // namespace
}  // namespace catserve

#include "engine/schedule/score_sequence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/schedule/driver.h"

namespace catserve {
namespace {

const ScheduleLimits kRoomy{.slots = 4, .kv_pages = 400, .step_rows_max = 400};

std::vector<float> Logprobs(const std::vector<SampleResult>& results) {
  std::vector<float> logprobs;
  for (const SampleResult& result : results) logprobs.push_back(result.token.logprob);
  return logprobs;
}

std::vector<std::pair<ModelGeometry, int32_t>> AllKinds() {
  std::vector<std::pair<ModelGeometry, int32_t>> all;
  for (const int32_t size : CatShape().chunk_sizes) all.emplace_back(CatShape(), size);
  ModelGeometry fixed_one = FixedShape();
  fixed_one.chunk_sizes = {1};
  all.emplace_back(FixedShape(), 8);
  all.emplace_back(fixed_one, 1);
  all.emplace_back(DenseShape(), 0);
  return all;
}

TEST(Score, SeesWhatGenerateSaw) {
  for (const auto& [model, size] : AllKinds()) {
    const std::vector<TokenId> prompt = Words(3);
    const Story generated = Driver(model, kRoomy).Tell(Generate(prompt, size, 90));
    std::vector<TokenId> text = prompt;
    for (const TokenId id : generated.ids()) text.push_back(id);
    const Story scored = Driver(model, kRoomy).Tell(Score(text, size));
    ASSERT_EQ(scored.scores.size(), text.size() - 1);
    std::vector<SampleResult> tail(scored.scores.end() - 90, scored.scores.end());
    EXPECT_EQ(Logprobs(tail), Logprobs(generated.tokens[0])) << "C " << size;
    for (size_t i = 0; i < scored.scores.size(); ++i) {
      EXPECT_EQ(scored.scores[i].token.id, text[i + 1]);
    }
  }
}

TEST(Score, IsOnePrefillAndNeverTokenByToken) {
  Driver driver(CatShape(), kRoomy);
  const Story story = driver.Tell(Score(Words(100), 8));
  EXPECT_EQ(story.pieces, 1);
  EXPECT_EQ(driver.scheduler.totals().steps, 1);
  EXPECT_EQ(story.finished->usage.chunks_compressed, 12);
  // Blocks of a summary, a separator and 7 tokens; the last holds tokens 96 to 98.
  EXPECT_EQ(driver.scheduler.totals().rows, 12 * 9 + 5);
}

TEST(Score, PiecesEqualTheWholeAndStreamInOrder) {
  for (const auto& [model, size] : AllKinds()) {
    const Story whole = Driver(model, kRoomy).Tell(Score(Words(128), size));
    Driver narrow(model, {.slots = 1, .kv_pages = 400, .step_rows_max = 36});
    const Story pieces = narrow.Tell(Score(Words(128), size));
    EXPECT_GT(pieces.pieces, 3);
    EXPECT_EQ(Logprobs(pieces.scores), Logprobs(whole.scores));
    EXPECT_LE(narrow.executor.rows_most(), 36);
  }
}

TEST(Score, EveryLengthEndsRight) {
  for (const auto& [model, size] : AllKinds()) {
    const Story whole = Driver(model, kRoomy).Tell(Score(Words(40), size));
    for (int32_t length = 2; length < 40; ++length) {
      const Story story = Driver(model, kRoomy).Tell(Score(Words(length), size));
      ASSERT_EQ(std::ssize(story.scores), length - 1);
      EXPECT_EQ(story.scores.back().token.logprob, whole.scores[length - 2].token.logprob);
    }
  }
}

TEST(Score, BranchesUseWhatIsFreeAndOnlyForAStep) {
  // 16 summaries take a page and each branch another: with 2 pages a step scores one chunk, with
  // more pages more; either way the branches' pages are back when the step is planned.
  const Request request = Score(Words(128), 8);
  Driver tight(CatShape(), {.slots = 2, .kv_pages = 2, .step_rows_max = 400});
  EXPECT_EQ(tight.Tell(request).pieces, 16);
  Driver wider(CatShape(), {.slots = 2, .kv_pages = 5, .step_rows_max = 400});
  wider.Add(request);
  wider.Step();
  EXPECT_EQ(wider.scheduler.pool().held(), 1);
  wider.Run();
  EXPECT_EQ(wider.stories[1].pieces, 4);
  EXPECT_EQ(wider.stories[1].finished->usage.kv_bytes_peak, 5 * 1600);
}

TEST(Score, RunsBesideStreamsAndOtherTexts) {
  Driver driver(CatShape(), {.slots = 4, .kv_pages = 16, .step_rows_max = 48}, 1);
  const RequestKey a = driver.Add(Generate(Words(20, 1), 4, 50));
  const RequestKey b = driver.Add(Score(Words(120, 2), 8));
  const RequestKey c = driver.Add(Score(Words(90, 3), 2));
  driver.Run();
  EXPECT_EQ(driver.stories[a].ids(),
            Driver(CatShape(), kRoomy).Tell(Generate(Words(20, 1), 4, 50)).ids());
  EXPECT_EQ(Logprobs(driver.stories[b].scores),
            Logprobs(Driver(CatShape(), kRoomy).Tell(Score(Words(120, 2), 8)).scores));
  EXPECT_EQ(Logprobs(driver.stories[c].scores),
            Logprobs(Driver(CatShape(), kRoomy).Tell(Score(Words(90, 3), 2)).scores));
}

TEST(Score, TopIdsComeWhenAskedFor) {
  Request request = Score(Words(10), 4);
  request.sampling.logprobs = 3;
  const Story story = Driver(CatShape(), kRoomy).Tell(request);
  EXPECT_EQ(story.scores[0].top.size(), 3u);
  request.sampling.logprobs = 0;
  EXPECT_TRUE(Driver(CatShape(), kRoomy).Tell(request).scores[0].top.empty());
}

TEST(Score, CancelledHalfWay) {
  Driver driver(CatShape(), {.slots = 1, .kv_pages = 100, .step_rows_max = 40}, 1);
  const RequestKey key = driver.Add(Score(Words(128), 4));
  driver.Steps(2);
  driver.scheduler.Cancel(key, driver.now);
  driver.Run();
  EXPECT_EQ(driver.stories[key].reason(), FinishReason::kCancelled);
  EXPECT_LT(driver.stories[key].scores.size(), 127u);
}

}  // namespace
}  // namespace catserve

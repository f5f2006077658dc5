#include "engine/schedule/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/schedule/driver.h"

namespace catserve {
namespace {

using testing::ElementsAre;

const ScheduleLimits kRoomy{.slots = 8, .kv_pages = 200, .step_rows_max = 256};

// The tokens that a request alone on an empty server gets: what it must get in any company.
std::vector<TokenId> Alone(const ModelGeometry& model, const Request& request) {
  return Driver(model, kRoomy).Tell(request).ids();
}

Request Drawn(const Request& greedy, uint64_t seed) {
  Request request = greedy;
  request.sampling.temperature = 1;
  request.sampling.seed = seed;
  return request;
}

TEST(Scheduler, OneRequestTellsItsWholeStory) {
  Driver driver(CatShape(), kRoomy);
  const Story story = driver.Tell(Generate(Words(10), 4, 7));
  EXPECT_EQ(story.started->prompt_tokens, 10);
  EXPECT_EQ(story.started->chunk_size, 4);
  EXPECT_EQ(story.ids().size(), 7u);
  EXPECT_EQ(story.ends[0], FinishReason::kLength);
  EXPECT_EQ(story.reason(), FinishReason::kLength);
  const Usage& usage = story.finished->usage;
  EXPECT_EQ(usage.prompt_tokens, 10);
  EXPECT_EQ(usage.generated_tokens, 7);
  EXPECT_EQ(usage.chunk_size, 4);
  EXPECT_EQ(usage.chunks_compressed, 4);  // 16 tokens are read, the 17th is not
  EXPECT_EQ(usage.kv_bytes_peak, kPageEntries * CatShape().bytes_per_entry);
  EXPECT_EQ(usage.queued, absl::Seconds(1));
  EXPECT_EQ(usage.prefilling, absl::ZeroDuration());  // the driver's steps take no time
  EXPECT_EQ(usage.decoding, absl::Seconds(6));
}

TEST(Scheduler, OthersJoinAndLeaveAndNobodyNotices) {
  for (const ModelGeometry& model : {CatShape(), FixedShape(), DenseShape()}) {
    const int32_t size = model.compresses() ? 8 : 0;
    const Request first = Generate(Words(20, 1), size, 30);
    const Request second = Drawn(Generate(Words(3, 2), size, 12), 7);
    const Request third = Generate(Words(33, 3), size, 5);
    Driver driver(model, kRoomy);
    const RequestKey a = driver.Add(first);
    driver.Steps(4);
    const RequestKey b = driver.Add(second);
    driver.Steps(3);
    const RequestKey c = driver.Add(third);
    driver.Run();
    EXPECT_EQ(driver.stories[a].ids(), Alone(model, first));
    EXPECT_EQ(driver.stories[b].ids(), Alone(model, second));
    EXPECT_EQ(driver.stories[c].ids(), Alone(model, third));
  }
}

TEST(Scheduler, ChunkSizesMixInOneBatch) {
  Driver driver(CatShape(), kRoomy);
  std::vector<RequestKey> keys;
  for (const int32_t size : CatShape().chunk_sizes) {
    keys.push_back(driver.Add(Generate(Words(21), size, 25)));
  }
  driver.Run();
  for (size_t i = 0; i < keys.size(); ++i) {
    const int32_t size = CatShape().chunk_sizes[i];
    EXPECT_EQ(driver.stories[keys[i]].started->chunk_size, size);
    EXPECT_EQ(driver.stories[keys[i]].ids(), Alone(CatShape(), Generate(Words(21), size, 25)));
  }
}

TEST(Scheduler, AChunkOfCTokensTakesCPlusOneRowsInCSteps) {
  Driver driver(CatShape(), kRoomy);
  driver.Add(Generate(Words(8), 4, 20));
  driver.Step();
  std::vector<int64_t> rows;
  for (int i = 0; i < 8; ++i) rows.push_back(driver.Step());
  EXPECT_THAT(rows, ElementsAre(1, 1, 1, 2, 1, 1, 1, 2));
}

TEST(Scheduler, PrefillOfAPromptCostsItsSummariesAndItsTail) {
  Driver driver(CatShape(), kRoomy);
  driver.Add(Generate(Words(101), 16, 1));
  EXPECT_EQ(driver.Step(), 6 + 1 + 1 + 5);
}

TEST(Scheduler, PrefillInPiecesEqualsWhole) {
  for (const ModelGeometry& model : {CatShape(), FixedShape(), DenseShape()}) {
    const Request request = Generate(Words(100), model.compresses() ? 8 : 0, 20);
    Driver narrow(model, {.slots = 2, .kv_pages = 50, .step_rows_max = 24});
    EXPECT_EQ(narrow.Tell(request).ids(), Alone(model, request));
    EXPECT_LE(narrow.executor.rows_most(), 24);
  }
}

TEST(Scheduler, ALongPromptDoesNotStopRunningStreams) {
  Driver driver(DenseShape(), {.slots = 4, .kv_pages = 50, .step_rows_max = 12});
  const RequestKey a = driver.Add(Generate(Words(4, 1), 0, 60));
  const RequestKey b = driver.Add(Generate(Words(4, 2), 0, 60));
  driver.Step();
  const RequestKey late = driver.Add(Generate(Words(100), 0, 1));
  for (int i = 0; i < 10; ++i) {  // ten steps with 10 of the prompt's rows beside two decodes
    EXPECT_FALSE(driver.stories[late].finished);
    EXPECT_EQ(driver.Step(), 12);
    EXPECT_EQ(driver.stories[a].ids().size(), i + 2u);
    EXPECT_EQ(driver.stories[b].ids().size(), i + 2u);
  }
  EXPECT_TRUE(driver.stories[late].finished);
  driver.Run();
}

TEST(Scheduler, ClosingsThatDoNotFitOneStepWaitForTheNext) {
  Driver driver(CatShape(), {.slots = 4, .kv_pages = 100, .step_rows_max = 42});
  std::vector<RequestKey> keys;
  for (int32_t i = 0; i < 4; ++i) keys.push_back(driver.Add(Generate(Words(1, i), 16, 60)));
  driver.Steps(50);  // all four close together: 64 compressor tokens, of which 32 fit
  size_t least = 60, most = 0;
  for (const RequestKey key : keys) {
    least = std::min(least, driver.stories[key].ids().size());
    most = std::max(most, driver.stories[key].ids().size());
  }
  EXPECT_LE(most - least, 1u);
  driver.Run();
  for (int32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(driver.stories[keys[i]].ids(), Alone(CatShape(), Generate(Words(1, i), 16, 60)));
  }
}

TEST(Scheduler, CancelFreesARunningRequestAtOnce) {
  Driver driver(CatShape(), kRoomy);
  const Request kept = Generate(Words(9, 1), 4, 20);
  const RequestKey a = driver.Add(kept);
  const RequestKey b = driver.Add(Generate(Words(80, 2), 1, 20));
  driver.Steps(3);
  const int64_t before = driver.scheduler.pool().held();
  driver.scheduler.Cancel(b, driver.now);
  EXPECT_EQ(driver.scheduler.pool().held(), before - PagesFor(85));
  driver.Run();
  EXPECT_EQ(driver.stories[b].reason(), FinishReason::kCancelled);
  EXPECT_EQ(driver.stories[b].ends[0], FinishReason::kCancelled);
  EXPECT_EQ(driver.stories[b].finished->usage.generated_tokens, 3);
  EXPECT_EQ(driver.stories[a].ids(), Alone(CatShape(), kept));
}

TEST(Scheduler, CancelInTheQueueNeverStarts) {
  Driver driver(CatShape(), {.slots = 1, .kv_pages = 50, .step_rows_max = 64});
  const RequestKey a = driver.Add(Generate(Words(9), 4, 20));
  const RequestKey b = driver.Add(Generate(Words(9), 4, 20));
  driver.Step();
  EXPECT_EQ(driver.scheduler.waiting(), 1);
  driver.scheduler.Cancel(b, driver.now);
  driver.scheduler.Cancel(b, driver.now);      // twice is once
  driver.scheduler.Cancel(12345, driver.now);  // unknown: ignored
  EXPECT_EQ(driver.scheduler.waiting(), 0);
  driver.Run();
  EXPECT_FALSE(driver.stories[b].started);
  EXPECT_EQ(driver.stories[b].reason(), FinishReason::kCancelled);
  EXPECT_EQ(driver.stories[a].reason(), FinishReason::kLength);
}

TEST(Scheduler, ADeadlinePassesInTheQueue) {
  Driver driver(CatShape(), {.slots = 1, .kv_pages = 50, .step_rows_max = 64});
  driver.Add(Generate(Words(9), 4, 20));
  Request late = Generate(Words(9), 4, 20);
  late.deadline = driver.now + absl::Seconds(5);
  const RequestKey key = driver.Add(late);
  EXPECT_EQ(driver.scheduler.NextLimit(), late.deadline);
  driver.Steps(4);
  EXPECT_FALSE(driver.stories[key].finished);
  driver.Step();
  EXPECT_EQ(driver.stories[key].reason(), FinishReason::kDeadline);
  EXPECT_EQ(driver.stories[key].finished->usage.queued, absl::Seconds(5));
  EXPECT_FALSE(driver.stories[key].started);
  EXPECT_EQ(driver.scheduler.NextLimit(), absl::InfiniteFuture());
  driver.Run();
}

TEST(Scheduler, ATimeLimitEndsAStreamWithWhatItHas) {
  Driver driver(CatShape(), kRoomy);
  Request request = Generate(Words(9), 4, 100);
  request.time_limit = absl::Seconds(6);
  const Story story = driver.Tell(request);
  EXPECT_EQ(story.reason(), FinishReason::kTimeLimit);
  EXPECT_EQ(story.ids().size(), 5u);
  EXPECT_EQ(story.finished->usage.generated_tokens, 5);
}

TEST(Scheduler, AStopIdEndsAndIsTheLastToken) {
  const std::vector<TokenId> free = Alone(CatShape(), Generate(Words(9), 4, 20));
  Request request = Generate(Words(9), 4, 20);
  request.stop.stop_ids = {free[5]};
  const auto first = std::find(free.begin(), free.end(), free[5]) - free.begin();
  for (const int depth : {0, 1}) {
    Driver driver(CatShape(), kRoomy, depth);
    const Story story = driver.Tell(request);
    EXPECT_EQ(story.ids(), std::vector<TokenId>(free.begin(), free.begin() + first + 1));
    EXPECT_EQ(story.reason(), FinishReason::kStopToken);
  }
}

TEST(Scheduler, MinTokensForbidsStopIdsUntilReached) {
  Request request = Generate(Words(9), 4, 40);
  for (TokenId id = 0; id < 60; ++id) request.stop.stop_ids.push_back(id);
  request.stop.min_tokens = 6;
  const std::vector<TokenId> ids = Alone(CatShape(), request);
  ASSERT_EQ(ids.size(), 7u);  // the first stop id that may come does
  EXPECT_THAT(std::vector(ids.begin(), ids.begin() + 6), testing::Each(60));  // the only one left
  EXPECT_NE(ids.back(), 60);
}

TEST(Scheduler, MaxTokensZeroReadsThePromptOnly) {
  for (const int depth : {0, 1}) {
    Driver driver(CatShape(), kRoomy, depth);
    const Story story = driver.Tell(Generate(Words(50), 8, 0));
    EXPECT_TRUE(story.started);
    EXPECT_TRUE(story.ids().empty());
    EXPECT_EQ(story.reason(), FinishReason::kLength);
    EXPECT_EQ(story.finished->usage.chunks_compressed, 6);
  }
}

TEST(Scheduler, ThePromptMayFillTheContextAndGenerationToo) {
  EXPECT_EQ(Driver(CatShape(), kRoomy).Tell(Generate(Words(128), 8, 0)).ids().size(), 0u);
  for (const int32_t size : CatShape().chunk_sizes) {
    EXPECT_EQ(Driver(CatShape(), kRoomy, 1).Tell(Generate(Words(1), size, 127)).ids().size(), 127u);
  }
}

TEST(Scheduler, ChoicesShareTheirPromptAndNotTheirRandomness) {
  Request request = Drawn(Generate(Words(9), 4, 12), 3);
  request.choices = 3;
  Driver driver(CatShape(), kRoomy);
  const Story story = driver.Tell(request);
  EXPECT_NE(story.ids(0), story.ids(1));
  EXPECT_NE(story.ids(1), story.ids(2));
  EXPECT_EQ(story.ids(0), Alone(CatShape(), Drawn(Generate(Words(9), 4, 12), 3)));
  EXPECT_EQ(story.finished->usage.generated_tokens, 36);
  request.sampling.temperature = 0;
  Driver greedy(CatShape(), kRoomy);
  const Story same = greedy.Tell(request);
  EXPECT_EQ(same.ids(0), same.ids(1));
}

TEST(Scheduler, ChoicesStartTogetherWhenThereAreSlotsForAll) {
  Driver driver(CatShape(), {.slots = 3, .kv_pages = 50, .step_rows_max = 64});
  driver.Add(Generate(Words(9), 4, 5));
  Request request = Generate(Words(9), 4, 5);
  request.choices = 3;
  const RequestKey key = driver.Add(request);
  const RequestKey behind = driver.Add(Generate(Words(9), 4, 5));
  driver.Steps(4);
  EXPECT_FALSE(driver.stories[key].started);
  EXPECT_FALSE(driver.stories[behind].started);  // does not overtake
  driver.Steps(2);
  EXPECT_TRUE(driver.stories[key].started);
  EXPECT_FALSE(driver.stories[behind].started);
  driver.Run();
}

TEST(Scheduler, EndChoiceEndsOneAndTheRequestWithTheLast) {
  Request request = Drawn(Generate(Words(9), 4, 10), 3);
  request.choices = 2;
  Driver driver(CatShape(), kRoomy);
  const RequestKey key = driver.Add(request);
  driver.scheduler.EndChoice(key, 0, driver.now);  // nothing of it was seen yet: ignored
  driver.Steps(4);
  driver.scheduler.EndChoice(key, 0, driver.now);
  driver.scheduler.EndChoice(key, 0, driver.now);  // twice is once
  driver.scheduler.EndChoice(key, 9, driver.now);  // there is none
  driver.Steps(2);
  EXPECT_EQ(driver.stories[key].ends[0], FinishReason::kStopToken);
  EXPECT_FALSE(driver.stories[key].ends[1]);
  EXPECT_FALSE(driver.stories[key].finished);
  driver.Run();
  EXPECT_EQ(driver.stories[key].ids(0).size(), 4u);
  EXPECT_EQ(driver.stories[key].ids(1).size(), 10u);
  EXPECT_EQ(driver.stories[key].reason(), FinishReason::kLength);
  driver.scheduler.EndChoice(key, 1, driver.now);  // finished: ignored
}

TEST(Scheduler, WhenPagesRunOutRequestsWaitAndNothingIsPreempted) {
  // Each needs 3 pages (40 entries); 7 pages let two run at a time though there are 8 slots.
  Driver driver(DenseShape(), {.slots = 8, .kv_pages = 7, .step_rows_max = 64});
  std::vector<RequestKey> keys;
  for (int32_t i = 0; i < 5; ++i) keys.push_back(driver.Add(Generate(Words(20, i), 0, 20)));
  driver.Step();
  EXPECT_EQ(driver.scheduler.running(), 2);
  EXPECT_EQ(driver.scheduler.waiting(), 3);
  driver.Run();
  for (int32_t i = 0; i < 5; ++i) {
    EXPECT_EQ(driver.stories[keys[i]].ids(), Alone(DenseShape(), Generate(Words(20, i), 0, 20)));
    const absl::Duration queued = driver.stories[keys[i]].finished->usage.queued;
    EXPECT_GE(queued, absl::Seconds(i < 2 ? 1 : 20));
  }
}

TEST(Scheduler, AnAutomaticBudgetCoarsensInsteadOfWaiting) {
  ModelGeometry model = CatShape(256);
  model.chunk_sizes = {1, 16};
  Request request = Generate(Words(200), 0, 40);
  request.budget = {.automatic = true};
  Driver driver(model, {.slots = 4, .kv_pages = 20, .step_rows_max = 256});
  const RequestKey first = driver.Add(request);   // 16 pages at C = 1
  const RequestKey second = driver.Add(request);  // 4 are left: 2 at C = 16
  driver.Run();
  EXPECT_EQ(driver.stories[first].started->chunk_size, 1);
  EXPECT_EQ(driver.stories[second].started->chunk_size, 16);
  EXPECT_EQ(driver.stories[second].finished->usage.queued, absl::Seconds(1));
}

TEST(Scheduler, AStepInFlightChangesNothingForTheCaller) {
  for (const ModelGeometry& model : {CatShape(), FixedShape(), DenseShape()}) {
    const Request request = Drawn(Generate(Words(30), model.compresses() ? 8 : 0, 40), 11);
    Driver ahead(model, kRoomy, 1);
    const RequestKey a = ahead.Add(request);
    ahead.Step();
    const RequestKey b = ahead.Add(request);
    ahead.Run();
    EXPECT_EQ(ahead.stories[a].ids(), Alone(model, request));
    EXPECT_EQ(ahead.stories[b].ids(), Alone(model, request));
  }
}

TEST(Scheduler, ARequestThatEndsInFlightLeavesItsMemoryToTheNextOne) {
  Driver driver(DenseShape(), {.slots = 1, .kv_pages = 4, .step_rows_max = 64}, 1);
  const RequestKey a = driver.Add(Generate(Words(40, 1), 0, 20));
  const Request next = Generate(Words(40, 2), 0, 20);
  const RequestKey b = driver.Add(next);
  driver.Steps(5);
  driver.scheduler.Cancel(a, driver.now);  // a step of it is still in flight
  driver.Run();
  EXPECT_EQ(driver.stories[a].reason(), FinishReason::kCancelled);
  EXPECT_EQ(driver.stories[b].ids(), Alone(DenseShape(), next));
}

TEST(SchedulerDeathTest, APlantedLeakIsFoundWhenTheSchedulerComesToRest) {
  const auto leak = [] {
    Driver driver(CatShape(), kRoomy);
    driver.Add(Generate(Words(9), 4, 5));
    driver.Step();
    std::vector<PageId> lost;
    (void)driver.scheduler.pool().Allocate(1, lost);  // as if a path forgot to give one back
    driver.Run();
  };
  EXPECT_DEATH(leak(), "no request is left, yet 1 pages are used");
}

// The checks that every test above leans on: each bends a good plan and must be caught.
TEST(FakeExecutorDeathTest, BentPlansAreCaught) {
  const auto run = [](void (*bend)(StepPlan&)) {
    Driver driver(CatShape(), kRoomy);
    driver.Add(Generate(Words(9), 4, 5));
    driver.Steps(2);
    StepPlan plan = driver.scheduler.Plan(driver.now);
    bend(plan);
    driver.executor.Launch(plan);
    driver.executor.Collect();
  };
  run([](StepPlan&) {});
  EXPECT_DEATH(run([](StepPlan& p) { ++p.rows[0].position; }), "does not see what it must");
  EXPECT_DEATH(run([](StepPlan& p) { --p.rows[0].index; }), "does not see what it must");
  EXPECT_DEATH(run([](StepPlan& p) { --p.runs[0].first_entry; }), "does not see what it must");
  EXPECT_DEATH(run([](StepPlan& p) { ++p.page_ids[0]; }), "does not see what it must");
  EXPECT_DEATH(run([](StepPlan& p) { ++p.samples[0].position; }), "predicts token");
  EXPECT_DEATH(run([](StepPlan& p) { p.runs[0].first_entry = 16; }), "outside of the run's pages");
}

}  // namespace
}  // namespace catserve

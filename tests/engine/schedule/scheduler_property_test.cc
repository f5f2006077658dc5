// Random traffic: whatever comes, every plan is right, every page returns, every accepted request
// ends exactly once, in order, and gets the tokens it would have got alone.
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "engine/schedule/scheduler.h"
#include "tests/engine/schedule/driver.h"

namespace catserve {
namespace {

class Trace {
 public:
  explicit Trace(uint32_t seed) : random_(seed), model_(RandomModel()), limits_(RandomLimits()) {
    depth_ = Below(2);
  }

  void Play() {
    Driver driver(model_, limits_, depth_);
    driver.executor.set_label(label_);
    std::map<RequestKey, Request> requests;
    const int32_t arrivals = 1 + Below(10);
    for (int32_t turn = 0; turn < 200 && std::ssize(requests) < arrivals; ++turn) {
      for (int32_t n = Below(3); n > 0; --n) {
        const Request request = RandomRequest(driver.now);
        if (!FitsAlone(model_, request, limits_.kv_pages)) continue;  // admission refuses these
        requests[driver.Add(request)] = request;
      }
      Disturb(driver, requests.size());
      driver.Step();
    }
    for (int32_t i = Below(20); i > 0; --i) {
      Disturb(driver, requests.size());
      driver.Step();
    }
    driver.Run();
    EXPECT_EQ(driver.scheduler.pool().held(), 0);
    for (const auto& [key, request] : requests) CheckEnd(driver.stories[key], request);
  }

 private:
  int32_t Below(int32_t end) { return static_cast<int32_t>(random_() % end); }

  ModelGeometry RandomModel() {
    const int32_t kind = Below(4);
    ModelGeometry model = kind == 0 ? DenseShape() : kind == 1 ? FixedShape() : CatShape();
    model.block_size = 64;
    return model;
  }

  ScheduleLimits RandomLimits() {
    const int32_t slots = 1 + Below(5);
    return {.slots = slots, .kv_pages = 3 + Below(25), .step_rows_max = 2 * slots + 34 + Below(40)};
  }

  Request RandomRequest(absl::Time now) {
    const bool score = Below(4) == 0;
    const int32_t prompt = (score ? 2 : 1) + Below(50);
    Request request = Generate(Words(prompt, Below(100)), 0, 0);
    if (model_.compresses()) {
      request.budget.chunk_size = model_.chunk_sizes[Below(std::ssize(model_.chunk_sizes))];
      if (!score && Below(3) == 0) request.budget = {.automatic = true};
    }
    if (score) {
      request.task = Task::kScore;
      return request;
    }
    request.stop.max_tokens = Below(std::min(30, 64 - prompt + 1));
    if (request.stop.max_tokens > 0) request.stop.min_tokens = Below(request.stop.max_tokens);
    for (int32_t i = Below(4); i > 0; --i) request.stop.stop_ids.push_back(Below(61));
    request.choices = 1 + Below(std::min(limits_.slots, 3));
    request.sampling.temperature = static_cast<float>(Below(2));
    request.sampling.seed = Below(1000);
    if (Below(8) == 0) request.deadline = now + absl::Seconds(Below(30));
    if (Below(8) == 0) request.time_limit = absl::Seconds(1 + Below(30));
    return request;
  }

  void Disturb(Driver& driver, size_t requests) {
    if (requests == 0 || Below(6) > 0) return;
    const RequestKey key = 1 + Below(static_cast<int32_t>(requests) + 1);
    if (Below(2) == 0) {
      driver.scheduler.Cancel(key, driver.now);
    } else {
      driver.scheduler.EndChoice(key, Below(3), driver.now);
    }
  }

  // Order and "exactly once" are the story's own checks.
  void CheckEnd(const Story& story, const Request& request) {
    ASSERT_TRUE(story.finished);
    for (const auto& end : story.ends) EXPECT_TRUE(end);
    if (!story.started) {
      EXPECT_NE(story.reason(), FinishReason::kLength);
      return;
    }
    Request alone = request;
    alone.budget = {.chunk_size = story.started->chunk_size};
    alone.deadline = absl::InfiniteFuture();
    alone.time_limit = absl::InfiniteDuration();
    Driver quiet(model_, {.slots = 8, .kv_pages = 300, .step_rows_max = 500});
    quiet.executor.set_label(label_ + " alone");
    const Story told = quiet.Tell(alone);
    for (int32_t c = 0; c < std::ssize(story.ends); ++c) {
      const std::vector<TokenId> got = story.ids(c), full = told.ids(c);
      ASSERT_LE(got.size(), full.size());
      EXPECT_TRUE(std::equal(got.begin(), got.end(), full.begin()));
      EXPECT_TRUE(story.ends[c] != FinishReason::kLength || got.size() == full.size());
    }
    ASSERT_LE(story.scores.size(), told.scores.size());
    for (size_t i = 0; i < story.scores.size(); ++i) {
      EXPECT_EQ(story.scores[i].token.logprob, told.scores[i].token.logprob);
    }
  }

  std::mt19937 random_;
  ModelGeometry model_;
  ScheduleLimits limits_;
  int depth_ = 0;

 public:
  std::string label_;
};

TEST(SchedulerProperty, AnyTrafficEndsWellAndLeavesEveryPageFree) {
  for (uint32_t seed = 1; seed <= 3000; ++seed) {
    Trace trace(seed);
    trace.label_ = "trace of seed " + std::to_string(seed) + ":";
    SCOPED_TRACE(trace.label_);
    trace.Play();
    if (testing::Test::HasFailure()) FAIL() << "failing trace: seed " << seed;
  }
}

}  // namespace
}  // namespace catserve

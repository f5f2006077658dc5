// The step thread: the same stories as the scheduler's, with real threads around them. Run under
// TSan, too.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "engine/admission.h"
#include "tests/engine/fake_executor.h"
#include "tests/engine/test_models.h"

namespace catserve {
namespace {

const EngineOptions kOptions{.slots = 4, .queue_requests_max = 8, .kv_pages = 100};
FakeExecutorOptions Fake(int depth = 0) {
  return {.slots = 4, .kv_pages = 100, .pipeline_depth = depth};
}

// Set by hand; any thread.
class HandClock : public Clock {
 public:
  absl::Time Now() override { return absl::FromUnixSeconds(seconds_); }
  void Pass(int64_t seconds) { seconds_ += seconds; }

 private:
  std::atomic<int64_t> seconds_ = 1'000'000;
};

// Holds steps back until told otherwise.
class Gate {
 public:
  void Pass() {
    std::unique_lock lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_ || allowed_ > 0; });
    if (!open_) --allowed_;
  }
  void Open() {
    Change([this] { open_ = true; });
  }
  void LetOnePass() {
    Change([this] { ++allowed_; });
  }
  void WaitForStep(int number) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this, number] { return arrived_ >= number; });
  }

 private:
  template <typename F>
  void Change(F change) {
    const std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int arrived_ = 0, allowed_ = 0;
  bool open_ = false;
};

// A caller who listens.
class Listener {
 public:
  EventSink sink() {
    return [this](const Event& event) {
      const std::lock_guard lock(mutex_);
      EXPECT_FALSE(finished_) << "an event after the last";
      if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
        for (const SampleResult& token : tokens->tokens) ids_.push_back(token.token.id);
      }
      if (const auto* finished = std::get_if<FinishedEvent>(&event)) finished_ = *finished;
      changed_.notify_all();
    };
  }
  FinishedEvent WaitForEnd() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return finished_.has_value(); });
    return *finished_;
  }
  void WaitForTokens(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this, count] { return ids_.size() >= count; });
  }
  std::vector<TokenId> ids() {
    const std::lock_guard lock(mutex_);
    return ids_;
  }
  bool finished() {
    const std::lock_guard lock(mutex_);
    return finished_.has_value();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<TokenId> ids_;
  std::optional<FinishedEvent> finished_;
};

// What must hold whether the engine waits for each step or launches the next before.
class EngineAtDepth : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Depths, EngineAtDepth, testing::Values(0, 1));

TEST_P(EngineAtDepth, ServesOneRequestAndComesToRest) {
  FakeExecutor executor(CatShape(), Fake(GetParam()));
  Engine engine(CatShape(), executor, kOptions);
  Listener listener;
  ASSERT_TRUE(engine.Submit(Generate(Words(9), 4, 20), listener.sink()).ok());
  const FinishedEvent end = listener.WaitForEnd();
  EXPECT_EQ(end.reason, FinishReason::kLength);
  EXPECT_EQ(listener.ids().size(), 20u);
  const EngineLoad load = engine.Load();
  EXPECT_EQ(load.running, 0);
  EXPECT_EQ(load.waiting, 0);
  EXPECT_EQ(load.kv_pages_used, 0);
  EXPECT_EQ(load.kv_pages_total, 100);
  EXPECT_EQ(load.steps, 20);
  EXPECT_EQ(load.chunks_compressed, 7);
  // A token, or a summary with the separator; at first two summaries behind g_0, S and a token.
  EXPECT_EQ(load.step_rows, (std::array<int64_t, kStepRowsBuckets>{14, 5, 0, 1}));
  EXPECT_EQ(load.rows, 14 + 5 * 2 + 5);
  EXPECT_EQ(load.times.compress, 7 * 4 * kFakeTokenTime);
  EXPECT_EQ(load.waiting_max, 8);
  EXPECT_EQ(load.live_tokens, 0);
}

TEST_P(EngineAtDepth, ManyCallersGetWhatTheyWouldGetAlone) {
  FakeExecutor executor(CatShape(), Fake(GetParam()));
  Engine engine(CatShape(), executor, kOptions);
  std::vector<std::thread> callers;
  std::atomic<int> served = 0;
  for (int caller = 0; caller < 6; ++caller) {
    callers.emplace_back([&, caller] {
      std::optional<std::vector<TokenId>> first;
      for (int turn = 0; turn < 30; ++turn) {
        Listener listener;
        const auto key = engine.Submit(Generate(Words(9 + caller, caller), 4, 15), listener.sink());
        ASSERT_TRUE(key.ok()) << key.status();
        if (turn % 5 == 4) engine.Cancel(*key);
        if (turn % 7 == 6) engine.EndChoice(*key, 0);
        const FinishedEvent end = listener.WaitForEnd();
        engine.Load();
        if (end.reason != FinishReason::kLength) continue;
        if (!first) first = listener.ids();
        EXPECT_EQ(listener.ids(), *first);
        ++served;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_GT(served, 100);
  EXPECT_EQ(engine.Load().kv_pages_used, 0);
}

TEST_P(EngineAtDepth, CancelReachesARunningStreamWithinOneStep) {
  Gate gate;
  FakeExecutorOptions options = Fake(GetParam());
  options.before_collect = [&gate] { gate.Pass(); };
  FakeExecutor executor(CatShape(), options);
  Engine engine(CatShape(), executor, kOptions);
  Listener listener;
  const auto key = engine.Submit(Generate(Words(9), 4, 100), listener.sink());
  gate.LetOnePass();
  gate.WaitForStep(2);
  engine.Cancel(*key);
  gate.LetOnePass();
  EXPECT_EQ(listener.WaitForEnd().reason, FinishReason::kCancelled);
  EXPECT_EQ(listener.ids().size(), 2u);
  gate.Open();
}

TEST(Engine, ABadRequestIsRefusedAtOnce) {
  FakeExecutor executor(CatShape(), Fake());
  Engine engine(CatShape(), executor, kOptions);
  const auto key = engine.Submit(Generate({}, 4, 20), [](const Event&) { FAIL(); });
  EXPECT_EQ(key.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Engine, AFullQueuePushesBackAndRecovers) {
  Gate gate;
  FakeExecutorOptions options = Fake();
  options.before_collect = [&gate] { gate.Pass(); };
  FakeExecutor executor(CatShape(), options);
  Engine engine(CatShape(), executor, {.slots = 1, .queue_requests_max = 2, .kv_pages = 100});
  Listener first, second, third, late;
  ASSERT_TRUE(engine.Submit(Generate(Words(9), 4, 3), first.sink()).ok());
  gate.WaitForStep(1);  // the first runs, so that the queue is empty
  ASSERT_TRUE(engine.Submit(Generate(Words(9), 4, 3), second.sink()).ok());
  ASSERT_TRUE(engine.Submit(Generate(Words(9), 4, 3), third.sink()).ok());
  EXPECT_EQ(engine.Load().running, 1);
  EXPECT_EQ(engine.Load().waiting, 2);
  const auto refused = [&engine] {
    const auto key = engine.Submit(Generate(Words(9), 4, 3), [](const Event&) { FAIL(); });
    EXPECT_TRUE(RetryAfter(key.status()).has_value());
    return key.status().code() == absl::StatusCode::kResourceExhausted;
  };
  EXPECT_TRUE(refused());  // both in the inbox
  gate.LetOnePass();
  gate.WaitForStep(2);
  EXPECT_TRUE(refused());  // both in the queue
  EXPECT_EQ(engine.Load().waiting, 2);
  gate.Open();
  third.WaitForEnd();
  EXPECT_TRUE(engine.Submit(Generate(Words(9), 4, 3), late.sink()).ok());
  late.WaitForEnd();
}

TEST_P(EngineAtDepth, APausedRequestGetsNoRowsAndGoesOnWhereItWas) {
  Gate gate;
  FakeExecutorOptions options = Fake(GetParam());
  options.before_collect = [&gate] { gate.Pass(); };
  FakeExecutor executor(CatShape(), options);
  Engine engine(CatShape(), executor, kOptions);
  Listener slow, quick;
  const auto key = engine.Submit(Generate(Words(9, 1), 4, 60), slow.sink());
  gate.LetOnePass();
  gate.WaitForStep(2);
  engine.Pause(*key);
  ASSERT_TRUE(engine.Submit(Generate(Words(9, 2), 4, 40), quick.sink()).ok());
  gate.Open();
  EXPECT_EQ(quick.WaitForEnd().reason, FinishReason::kLength);
  EXPECT_LE(slow.ids().size(), 3u);  // what was launched before
  EXPECT_EQ(engine.Load().paused, 1);
  engine.Resume(*key);
  EXPECT_EQ(slow.WaitForEnd().reason, FinishReason::kLength);
  EXPECT_EQ(engine.Load().paused, 0);
  Listener alone;
  ASSERT_TRUE(engine.Submit(Generate(Words(9, 1), 4, 60), alone.sink()).ok());
  alone.WaitForEnd();
  EXPECT_EQ(slow.ids(), alone.ids());
  engine.Pause(*key);  // finished: ignored
}

TEST_P(EngineAtDepth, APausedRequestStillEndsInTime) {
  HandClock clock;
  Gate gate;
  FakeExecutorOptions options = Fake(GetParam());
  options.before_collect = [&gate] { gate.Pass(); };
  FakeExecutor executor(CatShape(), options);
  Engine engine(CatShape(), executor, kOptions, clock);
  Request request = Generate(Words(9), 4, 100);
  request.deadline = clock.Now() + absl::Seconds(10);
  Listener listener, other;
  const auto key = engine.Submit(request, listener.sink());
  gate.WaitForStep(1);
  engine.Pause(*key);
  clock.Pass(11);
  ASSERT_TRUE(engine.Submit(Generate(Words(9), 4, 1), other.sink()).ok());
  gate.Open();
  EXPECT_EQ(listener.WaitForEnd().reason, FinishReason::kDeadline);
  EXPECT_LE(listener.ids().size(), 1u);
  other.WaitForEnd();
}

// The step thread once fell asleep beside a queue: with a step in flight an empty plan is no rest.
TEST(Engine, AResultThatMakesRoomStartsWhoWaits) {
  Gate gate;
  FakeExecutorOptions options = Fake(1);
  options.before_collect = [&gate] { gate.Pass(); };
  FakeExecutor executor(CatShape(), options);
  Engine engine(CatShape(), executor, {.slots = 1, .kv_pages = 100});
  Listener first, second;
  ASSERT_TRUE(engine.Submit(Generate(Words(9), 4, 2), first.sink()).ok());
  gate.WaitForStep(1);  // both of its steps are launched
  ASSERT_TRUE(engine.Submit(Generate(Words(9), 4, 1), second.sink()).ok());
  gate.Open();
  EXPECT_EQ(second.WaitForEnd().reason, FinishReason::kLength);
}

TEST_P(EngineAtDepth, TheDeadlineIsReadFromTheClock) {
  HandClock clock;
  Gate gate;
  FakeExecutorOptions options = Fake(GetParam());
  options.before_collect = [&gate] { gate.Pass(); };
  FakeExecutor executor(CatShape(), options);
  Engine engine(CatShape(), executor, {.slots = 1, .kv_pages = 100}, clock);
  Listener running, queued;
  ASSERT_TRUE(engine.Submit(Generate(Words(9), 4, 5), running.sink()).ok());
  gate.WaitForStep(1);
  Request request = Generate(Words(9), 4, 5);
  request.deadline = clock.Now() + absl::Seconds(10);
  ASSERT_TRUE(engine.Submit(request, queued.sink()).ok());
  clock.Pass(11);
  gate.LetOnePass();
  EXPECT_EQ(queued.WaitForEnd().reason, FinishReason::kDeadline);
  EXPECT_FALSE(running.finished());
  gate.Open();
  EXPECT_EQ(running.WaitForEnd().reason, FinishReason::kLength);
}

TEST_P(EngineAtDepth, DrainLetsWhatRunsFinishAndRefusesTheRest) {
  FakeExecutor executor(CatShape(), Fake(GetParam()));
  Engine engine(CatShape(), executor, kOptions);
  std::vector<Listener> listeners(6);
  for (Listener& listener : listeners) {
    ASSERT_TRUE(engine.Submit(Generate(Words(9), 4, 100), listener.sink()).ok());
  }
  engine.Drain(absl::InfiniteDuration());
  for (Listener& listener : listeners) {
    EXPECT_TRUE(listener.finished());
    EXPECT_EQ(listener.ids().size(), 100u);
  }
  const auto late = engine.Submit(Generate(Words(9), 4, 1), [](const Event&) { FAIL(); });
  EXPECT_EQ(late.status().code(), absl::StatusCode::kUnavailable);
  engine.Drain(absl::ZeroDuration());
}

TEST_P(EngineAtDepth, DrainCancelsWhatIsLeftAfterItsLimit) {
  FakeExecutorOptions options = Fake(GetParam());
  options.before_collect = [] { absl::SleepFor(absl::Milliseconds(50)); };
  FakeExecutor executor(CatShape(), options);
  Engine engine(CatShape(), executor, kOptions);
  Listener listener;
  ASSERT_TRUE(engine.Submit(Generate(Words(1), 4, 120), listener.sink()).ok());
  listener.WaitForTokens(1);
  engine.Drain(absl::Milliseconds(20));
  EXPECT_EQ(listener.WaitForEnd().reason, FinishReason::kCancelled);
  EXPECT_LT(listener.ids().size(), 120u);
}

TEST_P(EngineAtDepth, ItsEndTellsEveryoneWhoWaits) {
  std::vector<Listener> listeners(7);  // four run, three wait
  {
    FakeExecutorOptions options = Fake(GetParam());
    options.before_collect = [] { absl::SleepFor(absl::Milliseconds(20)); };
    FakeExecutor executor(CatShape(), options);
    Engine engine(CatShape(), executor, kOptions);
    for (Listener& listener : listeners) {
      ASSERT_TRUE(engine.Submit(Generate(Words(9), 4, 119), listener.sink()).ok());
    }
    listeners[0].WaitForTokens(3);
  }
  for (Listener& listener : listeners) {
    ASSERT_TRUE(listener.finished());
    EXPECT_EQ(listener.WaitForEnd().reason, FinishReason::kFailed);
  }
}

TEST(EngineDeathTest, OptionsThatCannotServeAreABug) {
  FakeExecutor executor(CatShape(), Fake());
  EXPECT_DEATH(Engine(CatShape(), executor, {.slots = 4, .kv_pages = 0}),
               "kv_pages 0 must be 1 or more");
}

}  // namespace
}  // namespace catserve

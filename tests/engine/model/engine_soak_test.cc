// The engine and the real model under many threads for a while: everything that callers may do, in
// any order. Made for ThreadSanitizer; CATSERVE_SOAK_SECONDS sets how long.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "engine/engine.h"
#include "engine/model/model.h"
#include "engine/model/model_executor.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/model/golden.h"

namespace catserve::testing {
namespace {

constexpr int kCallers = 6;
constexpr double kSecondsDefault = 2;

absl::Duration HowLong() {
  const char* const seconds = std::getenv("CATSERVE_SOAK_SECONDS");
  return absl::Seconds(seconds == nullptr ? kSecondsDefault : std::atof(seconds));
}

// Hears of one request.
class Listener {
 public:
  EventSink sink() {
    return [this](const Event& event) {
      const std::lock_guard lock(mutex_);
      EXPECT_FALSE(finished_) << "an event after the last";
      if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
        if (tokens->choice == 0) ids_.push_back(tokens->tokens[0].token.id);
      }
      if (const auto* end = std::get_if<FinishedEvent>(&event)) finished_ = end->reason;
      heard_.notify_all();
    };
  }
  FinishReason WaitForEnd() {
    std::unique_lock lock(mutex_);
    heard_.wait(lock, [this] { return finished_.has_value(); });
    return *finished_;
  }
  void WaitForTokens(size_t count) {
    std::unique_lock lock(mutex_);
    heard_.wait(lock, [this, count] { return finished_ || ids_.size() >= count; });
  }
  std::vector<TokenId> ids() {
    const std::lock_guard lock(mutex_);
    return ids_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable heard_;
  std::vector<TokenId> ids_;
  std::optional<FinishReason> finished_;
};

class EngineSoak : public ::testing::Test {
 protected:
  // Few slots, pages and places, so that all of them run short.
  static inline const EngineOptions kOptions{
      .slots = 5, .queue_requests_max = 8, .kv_pages = 40, .step_rows_max = 64};

  // What nobody disturbs gets the greedy continuation of the golden data.
  const GoldenCase& RandomCase(std::mt19937& random) const {
    for (;;) {
      const GoldenCase& c = golden_.cases[random() % golden_.cases.size()];
      if (!c.greedy.empty()) return c;
    }
  }

  static Request RandomRequest(const GoldenCase& c, std::mt19937& random) {
    Request request;
    request.prompt = c.prompt;
    request.budget.chunk_size = c.chunk_size;
    request.sampling.temperature = 0;
    request.stop.max_tokens = static_cast<int32_t>(c.greedy.size());
    request.owner = std::vector{"", "a", "b"}[random() % 3];
    request.priority = random() % 4 == 0 ? static_cast<int32_t>(random() % 20) - 10 : 0;
    if (random() % 6 == 0) request.deadline = absl::Now() + absl::Milliseconds(random() % 400);
    if (random() % 6 == 0) request.time_limit = absl::Milliseconds(1 + random() % 400);
    if (random() % 5 == 0) request.budget = {.automatic = true};
    if (random() % 5 == 0) request.choices = 2;
    if (random() % 8 == 0 && request.prompt.size() > 1) {
      request.task = Task::kScore;
      request.stop = {};
      request.choices = 1;
      request.budget = {.chunk_size = c.chunk_size};
    }
    return request;
  }

  void Disturb(RequestKey key, Listener& listener, std::mt19937& random) {
    listener.WaitForTokens(random() % 10);
    switch (random() % 5) {
      case 0: engine_->Cancel(key); break;
      case 1: engine_->EndChoice(key, static_cast<int32_t>(random() % 3)); break;
      case 2:
        engine_->Pause(key);
        absl::SleepFor(absl::Milliseconds(random() % 5));
        engine_->Resume(key);
        break;
      case 3: engine_->Load(); break;
      default: break;
    }
  }

  // One caller, until the time is over.
  void Call(uint32_t seed, absl::Time until) {
    std::mt19937 random(seed);
    while (absl::Now() < until) {
      const GoldenCase& c = RandomCase(random);
      const Request request = RandomRequest(c, random);
      Listener listener;
      const auto key = engine_->Submit(request, listener.sink());
      if (!key.ok()) {
        EXPECT_EQ(key.status().code(), absl::StatusCode::kResourceExhausted) << key.status();
        ++refused_;
        continue;
      }
      Disturb(*key, listener, random);
      const FinishReason end = listener.WaitForEnd();
      ++ended_;
      if (request.task == Task::kScore || request.budget.automatic) continue;
      const std::vector<TokenId> ids = listener.ids();
      ASSERT_LE(ids.size(), c.greedy.size());
      EXPECT_TRUE(std::equal(ids.begin(), ids.end(), c.greedy.begin())) << c.name;
      if (end != FinishReason::kLength || request.choices > 1) continue;
      EXPECT_EQ(ids.size(), c.greedy.size());
      ++whole_;
    }
  }

  const Golden golden_ = LoadGolden("adaptive-tiny");
  std::unique_ptr<Backend> backend_ = MakeBackend("cpu", 2).value();
  std::unique_ptr<Model> model_ = Model::Load(GoldenDirectory("adaptive-tiny"), *backend_).value();
  std::unique_ptr<ModelExecutor> executor_ =
      ModelExecutor::Create(*model_, *backend_,
                            {.slots = kOptions.slots,
                             .kv_pages = kOptions.kv_pages,
                             .step_rows_max = kOptions.step_rows_max})
          .value();
  std::unique_ptr<Engine> engine_ =
      std::make_unique<Engine>(Geometry(model_->config(), DType::kF32), *executor_, kOptions);
  std::atomic<int64_t> ended_ = 0, whole_ = 0, refused_ = 0;
};

TEST_F(EngineSoak, EveryoneIsAnsweredOnceAndAllPagesAreFree) {
  const absl::Time until = absl::Now() + HowLong();
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) callers.emplace_back([=, this] { Call(i, until); });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(engine_->Load().kv_pages_used, 0);
  EXPECT_EQ(engine_->Load().running + engine_->Load().waiting, 0);
  engine_->Drain(absl::InfiniteDuration());
  std::printf(
      "engine_soak_seconds=%.0f\nengine_soak_requests=%lld\nengine_soak_whole=%lld\n"
      "engine_soak_refused=%lld\n",
      absl::ToDoubleSeconds(HowLong()), static_cast<long long>(ended_),
      static_cast<long long>(whole_), static_cast<long long>(refused_));
  EXPECT_GT(ended_, 0);
}

}  // namespace
}  // namespace catserve::testing

// After an overload the scheduler works as before it: nothing that was coarsened, preempted or
// queued holds it back.
#include <gtest/gtest.h>

#include <random>

#include "engine/schedule/scheduler.h"
#include "tests/engine/schedule/driver.h"

namespace catserve {
namespace {

constexpr int32_t kQueueMax = 32;  // as admission bounds it

class Traffic {
 public:
  Traffic() : driver_(Shape(), Limits()) {}

  // Plays `steps` steps with so many arrivals in each, on the average. Returns tokens per step.
  double Play(int32_t steps, double arrivals) {
    const int64_t before = Tokens();
    std::poisson_distribution<int32_t> count(arrivals);
    for (int32_t i = 0; i < steps; ++i) {
      for (int32_t n = count(random_); n > 0; --n) Arrive();
      driver_.Step();
    }
    return static_cast<double>(Tokens() - before) / steps;
  }

  Scheduler& scheduler() { return driver_.scheduler; }
  void Run() { driver_.Run(); }

 private:
  static ModelGeometry Shape() {
    ModelGeometry model = CatShape(512);
    model.chunk_sizes = {4, 8, 16};
    return model;
  }
  static ScheduleLimits Limits() {
    return {.slots = 16, .kv_pages = 40, .step_rows_max = 256, .compressor_token_rows = 0.1};
  }

  void Arrive() {
    if (driver_.scheduler.waiting() >= kQueueMax) return;  // refused
    const auto prompt = static_cast<int32_t>(50 + random_() % 200);
    Request request = Generate(Words(prompt, static_cast<int32_t>(random_() % 50)), 8,
                               static_cast<int32_t>(50 + random_() % 100));
    if (random_() % 2 == 0) request.budget = {.automatic = true};
    driver_.Add(request);
  }

  int64_t Tokens() const {
    int64_t tokens = 0;
    for (const auto& [key, story] : driver_.stories) tokens += std::ssize(story.tokens[0]);
    return tokens;
  }

  std::mt19937 random_{7};
  Driver driver_;
};

TEST(Recovery, ThroughputIsBackSoonAfterAnOverloadOfTenTimesCapacity) {
  const double capacity = Traffic().Play(2000, 10) / 100;  // requests a step: of 100 tokens each
  Traffic traffic;
  traffic.Play(500, 0.8 * capacity);
  const double before = traffic.Play(2000, 0.8 * capacity);
  const double during = traffic.Play(2000, 10 * capacity);
  EXPECT_GT(during, 0.95 * before);  // full, but not choked
  EXPECT_GT(traffic.scheduler().totals().budgets_coarsened, 0);
  traffic.Play(200, 0.8 * capacity);
  const double after = traffic.Play(2000, 0.8 * capacity);
  EXPECT_GT(after, 0.95 * before);
  EXPECT_LT(traffic.scheduler().waiting(), kQueueMax / 2);
  traffic.Run();
}

}  // namespace
}  // namespace catserve

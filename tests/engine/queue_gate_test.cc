// Room and time in the queue; and how often a refusal for the deadline's sake was right.
#include "engine/queue_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "engine/admission.h"
#include "tests/engine/schedule/driver.h"

namespace catserve {
namespace {

using testing::HasSubstr;

const absl::Time kStart = absl::FromUnixSeconds(1'000'000);

Request Ask(const std::string& owner = "", int32_t max_tokens = 90, int32_t priority = 0) {
  Request request = Generate(Words(10), 4, max_tokens);
  request.owner = owner;
  request.priority = priority;
  return request;
}

// A gate with a queue in front of it that is drained by hand.
class Door {
 public:
  explicit Door(int32_t requests_max) : gate_(requests_max) {}

  absl::Status Come(const Request& request) {
    const absl::Status status = gate_.Enter(next_, request, now_);
    if (status.ok()) line_.push_back(next_++);
    return status;
  }
  bool Comes(const std::string& owner) { return Come(Ask(owner)).ok(); }
  // The oldest leave, one each second.
  void LeaveOneASecond(int32_t count) {
    for (; count > 0; --count) {
      now_ += absl::Seconds(1);
      const RequestKey key = line_.front();
      line_.erase(line_.begin());
      gate_.Leave({&key, 1}, now_);
    }
  }
  void Tick() { gate_.Leave({}, now_); }
  void Pass(absl::Duration time) { now_ += time; }
  QueueGate& gate() { return gate_; }
  absl::Time now() const { return now_; }

 private:
  QueueGate gate_;
  absl::Time now_ = kStart;
  RequestKey next_ = 1;
  std::vector<RequestKey> line_;
};

TEST(QueueGate, OneOwnerAloneHasTheWholeQueue) {
  Door door(4);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(door.Comes(""));
  const absl::Status full = door.Come(Ask());
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()),
              HasSubstr("the queue is full: 4 requests wait (queue_requests_max 4)"));
  EXPECT_TRUE(RetryAfter(full).has_value());
  door.LeaveOneASecond(1);
  EXPECT_TRUE(door.Comes(""));
}

TEST(QueueGate, AFullQueueOfOneOwnerStillHasRoomForOthers) {
  Door door(8);
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(door.Comes("flood"));
  EXPECT_FALSE(door.Comes("flood"));
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(door.Comes("b"));  // half of 8
  EXPECT_FALSE(door.Comes("b"));
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(door.Comes("c"));  // a third
  EXPECT_FALSE(door.Comes("c"));
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(door.Comes("d"));
  EXPECT_EQ(door.gate().requests(), 16);
  EXPECT_FALSE(door.Comes("e"));  // twice the limit: nobody gets in
  door.LeaveOneASecond(8);        // those of the flood
  EXPECT_FALSE(door.Comes("b"));
  EXPECT_TRUE(door.Comes("flood"));  // it has less than its share now
  EXPECT_TRUE(door.Comes("flood"));
  EXPECT_FALSE(door.Comes("flood"));
  EXPECT_TRUE(door.Comes("e"));
}

TEST(QueueGate, NothingIsEstimatedWithoutObservations) {
  Door door(100);
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(door.Comes(""));
  Request request = Ask();
  request.deadline = door.now() + absl::Milliseconds(1);
  EXPECT_TRUE(door.Come(request).ok());
  EXPECT_FALSE(door.gate().EstimateWait(request).has_value());
  door.Tick();
  door.LeaveOneASecond(QueueGate::kObservedLeast - 1);
  EXPECT_FALSE(door.gate().EstimateWait(request).has_value());
  door.LeaveOneASecond(1);
  EXPECT_TRUE(door.gate().EstimateWait(request).has_value());
}

// 40 requests of 100 tokens wait, one leaves each second.
class Busy : public testing::Test {
 protected:
  Busy() {
    for (int i = 0; i < 80; ++i) EXPECT_TRUE(door_.Comes(""));
    door_.Tick();
    door_.LeaveOneASecond(40);
  }
  absl::Status ComeWith(absl::Duration left, const std::string& owner = "", int priority = 0) {
    Request request = Ask(owner, 90, priority);
    request.deadline = door_.now() + left;
    return door_.Come(request);
  }
  Door door_{100};
};

TEST_F(Busy, AHopelessDeadlineIsRefusedWithNumbersAndWhenToComeBack) {
  EXPECT_EQ(door_.gate().EstimateWait(Ask()), absl::Seconds(40));
  const absl::Status status = ComeWith(absl::Seconds(10));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(),
            "the deadline is too near for the queue: 10000 ms are left, and 4000 tokens of the 40 "
            "requests that wait take an estimated 40000 ms before it; allow more time; try again "
            "in 30000 ms");
  EXPECT_EQ(RetryAfter(status), absl::Seconds(30));
  EXPECT_EQ(door_.gate().requests(), 40);
  EXPECT_TRUE(ComeWith(absl::Seconds(40)).ok());  // it may just do
  EXPECT_TRUE(ComeWith(absl::InfiniteDuration()).ok());
  EXPECT_TRUE(ComeWith(-absl::Seconds(1)).ok()) << "the scheduler ends it, as the deadline's";
}

TEST_F(Busy, WhoComesBeforeTheQueueIsNotRefusedForIt) {
  EXPECT_FALSE(ComeWith(absl::Seconds(10)).ok());
  EXPECT_FALSE(ComeWith(absl::Seconds(10), "", /*priority=*/5).ok());
  EXPECT_TRUE(ComeWith(absl::Seconds(10), "", /*priority=*/-1).ok());
  EXPECT_TRUE(ComeWith(absl::Seconds(10), "another").ok());
  for (int i = 0; i < 29; ++i) ASSERT_TRUE(ComeWith(absl::InfiniteDuration(), "another").ok());
  // 30 of its own wait, and as much of the others.
  EXPECT_NEAR(absl::ToDoubleSeconds(*door_.gate().EstimateWait(Ask("another"))), 60, 1e-6);
}

TEST_F(Busy, TimeWithoutAQueueIsNoObservation) {
  door_.LeaveOneASecond(40);
  door_.Pass(absl::Hours(1));
  door_.Tick();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(door_.Comes(""));
  EXPECT_NEAR(absl::ToDoubleSeconds(*door_.gate().EstimateWait(Ask())), 10, 1e-6);
}

// -- How often it is right ------------------------------------------------------------------------

// An overloaded scheduler with the gate in front: a step is a second, times are the fake clock's.
class Overload {
 public:
  struct Caller {
    Request request;
    std::optional<RequestKey> key;  // of those accepted
  };

  // patient: this caller passes the gate whatever its deadline.
  Overload(uint32_t seed, bool shed, std::optional<size_t> patient = {})
      : random_(seed), shed_(shed), patient_(patient), driver_(Shape(), Limits(), 0) {
    driver_.on_plan = [this](const StepPlan&) {
      gate_.Leave(driver_.scheduler.TakeLeftQueue(), driver_.now);
    };
    for (int32_t step = 0; step < 600; ++step) {
      for (int32_t n = arrivals_(random_); n > 0; --n) Arrive();
      driver_.Step();
    }
    driver_.Run();
  }

  const std::vector<Caller>& callers() const { return callers_; }
  bool Refused(size_t i) const { return !callers_[i].key; }
  bool Started(size_t i) { return callers_[i].key && story(i).started; }
  bool Whole(size_t i) { return Started(i) && story(i).reason() == FinishReason::kLength; }

 private:
  static ModelGeometry Shape() {
    ModelGeometry model = CatShape(256);
    model.chunk_sizes = {4, 8, 16};
    return model;
  }
  static ScheduleLimits Limits() {
    return {.slots = 8, .kv_pages = 80, .step_rows_max = 128, .compressor_token_rows = 0.1};
  }
  const Story& story(size_t i) { return driver_.stories[*callers_[i].key]; }
  int32_t Below(int32_t end) { return static_cast<int32_t>(random_() % end); }

  void Arrive() {
    Request request = Generate(Words(1 + Below(120), Below(50)), 8, 1 + Below(100));
    request.owner = std::string(1, Below(4) == 0 ? 'a' : 'b');
    request.priority = Below(4) == 0 ? Below(60) - 30 : 0;
    request.deadline = driver_.now + absl::Seconds(5 + Below(300));
    Request asks = request;
    if (!shed_ || patient_ == callers_.size()) asks.deadline = absl::InfiniteFuture();
    Caller caller{.request = request};
    if (gate_.Enter(next_, asks, driver_.now).ok()) {
      caller.key = driver_.Add(request);
      EXPECT_EQ(*caller.key, next_++);
    }
    callers_.push_back(caller);
  }

  std::mt19937 random_;
  std::poisson_distribution<int32_t> arrivals_{0.4};  // three times what it can take
  const bool shed_;
  const std::optional<size_t> patient_;
  Driver driver_;
  QueueGate gate_{1000};
  RequestKey next_ = 1;
  std::vector<Caller> callers_;
};

// Of those refused for their deadline, some are let in after all, one in each replay: hardly any
// would have got its whole answer. And what is not refused misses its deadline in the queue far
// less often than without the rule.
TEST(QueueGate, WhatItRefusesWouldHaveMissed) {
  int32_t refused = 0, replayed = 0, started = 0, whole = 0;
  int32_t missed_with = 0, missed_without = 0, served_with = 0, served_without = 0, all = 0;
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    Overload with(seed, true), without(seed, false);
    all += static_cast<int32_t>(with.callers().size());
    for (size_t i = 0; i < with.callers().size(); ++i) {
      served_with += with.Whole(i) ? 1 : 0;
      served_without += without.Whole(i) ? 1 : 0;
      missed_without += without.Started(i) ? 0 : 1;
      if (!with.Refused(i)) {
        missed_with += with.Started(i) ? 0 : 1;
        continue;
      }
      if (++refused % 5 != 0) continue;
      Overload replay(seed, true, i);
      ++replayed;
      started += replay.Started(i) ? 1 : 0;
      whole += replay.Whole(i) ? 1 : 0;
    }
  }
  std::printf(
      "of %d callers %d refused; of %d of these let in after all %d started and %d came to their "
      "end\nmissed in the queue: %d with the rule, %d without; served whole: %d with, %d without\n",
      all, refused, replayed, started, whole, missed_with, missed_without, served_with,
      served_without);
  EXPECT_GT(refused, all / 10);
  EXPECT_GE(replayed, 50);
  EXPECT_LE(started, replayed / 20);
  EXPECT_LE(whole, replayed / 50);
  EXPECT_LT(missed_with, missed_without * 0.6);
  EXPECT_GE(served_with, served_without);
}

}  // namespace
}  // namespace catserve

// What an owner may count on whatever others send.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/schedule/scheduler.h"
#include "tests/engine/schedule/driver.h"

namespace catserve {
namespace {

Request OwnedBy(const std::string& owner, int32_t prompt, int32_t max_tokens) {
  Request request = Generate(Words(prompt), 4, max_tokens);
  request.owner = owner;
  return request;
}

// Owners that always have more waiting, and others that come with one request. Notes for each
// request when it first got a slot.
class Crowd {
 public:
  explicit Crowd(uint32_t seed)
      : random_(seed), slots_(1 + Below(4)), driver_(CatShape(), Limits(), Below(2)) {
    driver_.on_plan = [this](const StepPlan&) { NoteStarts(); };
  }

  // The most requests of one owner that started while another's only one waited.
  int32_t MostOvertakings() {
    int32_t most = 0;
    for (int32_t turn = 0; turn < 5; ++turn) {
      Flood();
      driver_.Steps(Below(30));
      Flood();
      const size_t before = starts_.size();
      const std::string owner = absl::StrCat("quiet", turn);
      const RequestKey quiet = driver_.Add(OwnedBy(owner, 1 + Below(40), 1 + Below(30)));
      std::map<std::string, int32_t> overtakings;
      while (!started_.contains(quiet)) {
        driver_.Step();
        Flood();
      }
      for (size_t i = before; starts_[i] != quiet; ++i) ++overtakings[owners_[starts_[i]]];
      for (const auto& [name, count] : overtakings) most = std::max(most, count);
      while (!driver_.stories[quiet].finished) driver_.Step();
    }
    driver_.on_plan = nullptr;
    driver_.scheduler.CancelAll(FinishReason::kCancelled, driver_.now);
    driver_.Read(driver_.scheduler.TakeReports());
    driver_.Run();
    return most;
  }

 private:
  int32_t Below(int32_t end) { return static_cast<int32_t>(random_() % end); }
  ScheduleLimits Limits() const {
    return {.slots = slots_, .kv_pages = 64, .step_rows_max = 128, .step_tokens_max = 96};
  }

  void Flood() {
    for (const char* owner : {"a", "b", "c"}) {
      while (waiting_[owner] < 8) {
        Request request = OwnedBy(owner, 1 + Below(60), 1 + Below(60));
        request.priority = Below(200) - 100;
        request.choices = 1 + Below(std::min(slots_, 2));
        request.sampling.temperature = 1;
        owners_[driver_.Add(request)] = owner;
        ++waiting_[owner];
      }
    }
  }

  // In the order in which they got slots: slots are given one after the other.
  void NoteStarts() {
    std::set<RequestKey> now;
    for (int32_t slot = 0; slot < slots_; ++slot) now.insert(driver_.scheduler.OwnerOf(slot));
    for (const RequestKey key : driver_.scheduler.TakeLeftQueue()) {
      EXPECT_TRUE(now.contains(key));
      starts_.push_back(key);
      started_.insert(key);
      if (owners_.contains(key)) --waiting_[owners_[key]];
    }
  }

  std::mt19937 random_;
  const int32_t slots_;
  Driver driver_;
  std::map<RequestKey, std::string> owners_;  // of those who flood
  std::map<std::string, int32_t> waiting_;
  std::vector<RequestKey> starts_;
  std::set<RequestKey> started_;
};

TEST(Fairness, ALoneRequestWaitsForAtMostOneOfEachOtherOwner) {
  int32_t most = 0;
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    most = std::max(most, Crowd(seed).MostOvertakings());
    ASSERT_LE(most, 1) << "seed " << seed;
  }
  EXPECT_EQ(most, 1);  // the bound is met, so that it is the right one
}

// Two owners who both always have more waiting get the same work done, whatever the size and the
// number of their requests.
TEST(Fairness, OwnersWithBacklogsGetEqualWork) {
  Driver driver(CatShape(), {.slots = 4, .kv_pages = 64, .step_rows_max = 128});
  std::map<std::string, std::vector<RequestKey>> sent;
  const auto add = [&](const std::string& owner, int32_t prompt, int32_t max_tokens) {
    sent[owner].push_back(driver.Add(OwnedBy(owner, prompt, max_tokens)));
  };
  for (int i = 0; i < 200; ++i) add("large", 60, 60);
  for (int i = 0; i < 2000; ++i) add("small", 2, 10);
  driver.Steps(1500);
  std::map<std::string, int64_t> work;
  for (const auto& [owner, keys] : sent) {
    for (const RequestKey key : keys) {
      if (!driver.stories[key].started) continue;
      work[owner] += driver.stories[key].started->prompt_tokens;
      work[owner] += std::ssize(driver.stories[key].tokens[0]);
    }
  }
  EXPECT_GT(work["large"], 2000);
  EXPECT_NEAR(static_cast<double>(work["large"]) / static_cast<double>(work["small"]), 1, 0.1);
  driver.scheduler.CancelAll(FinishReason::kCancelled, driver.now);
  driver.Read(driver.scheduler.TakeReports());
  driver.Run();
}

// Whoever was preempted has had its turn: it goes on before what nobody has started.
TEST(Fairness, WaitingLineKeepsThePreemptedInFrontAndForgetsTheIdle) {
  WaitingLine line;
  auto request = [key = RequestKey{0}](const std::string& owner, int64_t work) mutable {
    auto state = std::make_shared<RequestState>();
    state->key = ++key;
    state->request.owner = owner;
    state->work = work;
    state->turn = absl::FromUnixSeconds(static_cast<int64_t>(key));
    return state;
  };
  const auto x_first = request("x", 100), x_second = request("x", 100), y_first = request("y", 10);
  line.Insert(x_first);
  line.Insert(x_second);
  EXPECT_EQ(line.FirstNotPaused(), x_first);
  line.Start(x_first);
  line.Insert(y_first);
  EXPECT_EQ(line.FirstNotPaused(), y_first);  // x has had 100
  line.Insert(x_first);                       // preempted
  EXPECT_EQ(line.FirstNotPaused(), x_first);
  x_first->paused = true;
  EXPECT_EQ(line.FirstNotPaused(), y_first);
  line.Start(x_first);
  line.Settle(*x_first, 0);  // it came to nothing: x is as good as new
  EXPECT_EQ(line.FirstNotPaused(), x_second) << "it has the earlier turn, and y no better claim";
  EXPECT_EQ(line.size(), 2);
  EXPECT_TRUE(line.Erase(x_second));
  EXPECT_FALSE(line.Erase(x_second));
  line.Start(y_first);
  EXPECT_TRUE(line.empty());
  line.Forget();
}

}  // namespace
}  // namespace catserve

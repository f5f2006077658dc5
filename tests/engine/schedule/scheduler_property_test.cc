// Random traffic: whatever comes, every plan is right, every page returns, every accepted request
// ends exactly once, in order, and gets the tokens it would have got alone.
//
// CATSERVE_TRACE_SEED=n plays one trace; CATSERVE_TRACES=n plays so many.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/schedule/scheduler.h"
#include "tests/engine/schedule/driver.h"

namespace catserve {
namespace {

using testing::Contains;

// What happened in the present trace, to be printed if a check aborts.
std::string story_so_far;

void PrintStory(int) {
  std::fputs(story_so_far.c_str(), stderr);
  std::signal(SIGABRT, SIG_DFL);
}

class Trace {
 public:
  explicit Trace(uint32_t seed) : random_(seed), model_(RandomModel()), limits_(RandomLimits()) {
    depth_ = Below(2);
    label_ = absl::StrCat("trace of seed ", seed, ":");
    story_so_far =
        absl::StrCat(label_, " kind ", static_cast<int>(model_.kind), ", ", limits_.slots,
                     " slots, ", limits_.kv_pages, " pages, step ", limits_.step_rows_max, " rows ",
                     limits_.step_tokens_max, " work, depth ", depth_, "\n");
  }

  // plant_leak: loses a page on the way, as a path would that forgets to give it back.
  void Play(bool plant_leak = false) {
    Driver driver(model_, limits_, depth_);
    driver.executor.set_label(label_);
    const int32_t arrivals = 1 + Below(12);
    for (int32_t turn = 0; turn < 200 && std::ssize(requests_) < arrivals; ++turn) {
      for (int32_t n = Below(3); n > 0; --n) Arrive(driver);
      Disturb(driver);
      driver.Step();
      if (plant_leak && turn == 1) {
        std::vector<PageId> lost;
        (void)driver.scheduler.pool().Allocate(1, lost);
      }
    }
    for (int32_t i = Below(40); i > 0; --i) {
      Disturb(driver);
      driver.Step();
    }
    for (const auto& [key, request] : requests_) driver.scheduler.SetPaused(key, false);
    Tell("all readers go on");
    driver.Run();
    EXPECT_EQ(driver.scheduler.pool().held(), 0);
    for (const auto& [key, request] : requests_) CheckEnd(driver.stories[key], request);
    totals_ = driver.scheduler.totals();
  }
  const ScheduleTotals& totals() const { return totals_; }

  // One request that nobody disturbs gets the same whatever is in flight: no time passes in it that
  // could tell the difference. (Choices share a bound: an end seen later keeps pages longer.)
  void PlayAlone() {
    Request request = RandomRequest(absl::InfinitePast());
    request.deadline = absl::InfiniteFuture();
    request.time_limit = absl::InfiniteDuration();
    if (OneIn(2)) request.stop.stop_ids.clear();
    if (request.budget.automatic) {
      request.choices = 1;
      request.budget.kv_bytes_max = (1 + Below(4)) * kPageEntries * model_.bytes_per_entry;
    }
    if (!FitsAlone(model_, request, limits_.kv_pages)) return;
    Story stories[2];
    for (const int depth : {0, 1}) {
      Driver driver(model_, limits_, depth);
      driver.executor.set_label(label_);
      stories[depth] = driver.Tell(request);
    }
    const Story &waited = stories[0], &ahead = stories[1];
    ended_at_bound_ = waited.reason() == FinishReason::kKvLimit;
    EXPECT_EQ(ahead.ends, waited.ends);
    EXPECT_EQ(ahead.reason(), waited.reason());
    EXPECT_EQ(ahead.scores.size(), waited.scores.size());
    EXPECT_EQ(ahead.changes.size(), waited.changes.size());
    for (int32_t c = 0; c < std::ssize(waited.tokens); ++c) {
      EXPECT_EQ(ahead.ids(c), waited.ids(c));
    }
  }
  bool ended_at_bound() const { return ended_at_bound_; }

 private:
  int32_t Below(int32_t end) { return static_cast<int32_t>(random_() % end); }
  bool OneIn(int32_t n) { return Below(n) == 0; }
  template <typename... Parts>
  void Tell(const Parts&... parts) {
    absl::StrAppend(&story_so_far, parts..., "\n");
  }

  ModelGeometry RandomModel() {
    const int32_t kind = Below(4);
    ModelGeometry model = kind == 0 ? DenseShape() : kind == 1 ? FixedShape() : CatShape();
    model.block_size = OneIn(4) ? 400 : 64;
    return model;
  }

  ScheduleLimits RandomLimits() {
    const int32_t slots = 1 + Below(5);
    ScheduleLimits limits{.slots = slots, .kv_pages = 3 + Below(OneIn(2) ? 25 : 60)};
    limits.step_rows_max = 2 * slots + 34 + Below(40);
    limits.compressor_token_rows = Below(3) * 0.1;
    const double least = LeastWork(model_, limits.compressor_token_rows);
    limits.step_tokens_max = static_cast<int32_t>(slots + 2 * least) + 1 + Below(60);
    limits.quality.resize(Below(3));
    for (QualityColumn& column : limits.quality) {
      for (const int32_t size : model_.chunk_sizes) column[size] = Below(10) * 0.1;
    }
    return limits;
  }

  void Arrive(Driver& driver) {
    const Request request = RandomRequest(driver.now);
    if (!FitsAlone(model_, request, limits_.kv_pages)) return;  // admission refuses these
    const RequestKey key = driver.Add(request);
    requests_[key] = request;
    Tell("request ", key, ": prompt ", request.prompt.size(), ", max ", request.stop.max_tokens,
         ", n ", request.choices, ", chunk ", request.budget.chunk_size, ", kv ",
         request.budget.kv_bytes_max, ", priority ", request.priority);
  }

  // Texts of few kinds, so that many begin alike.
  Request RandomRequest(absl::Time now) {
    const bool score = OneIn(5);
    const int32_t longest = model_.block_size - 14;
    const int32_t prompt = (score ? 2 : 1) + Below(longest);
    Request request = Generate(Words(prompt, Below(4)), 0, 0);
    if (model_.compresses()) {
      request.budget.chunk_size = model_.chunk_sizes[Below(std::ssize(model_.chunk_sizes))];
      if (!score && !OneIn(3)) request.budget = RandomAutoBudget();
    }
    if (score) {
      request.task = Task::kScore;
      return request;
    }
    request.stop.max_tokens = Below(std::min(150, model_.block_size - prompt + 1));
    if (request.stop.max_tokens > 0) request.stop.min_tokens = Below(request.stop.max_tokens);
    for (int32_t i = Below(4); i > 0; --i) request.stop.stop_ids.push_back(Below(61));
    request.choices = 1 + Below(std::min(limits_.slots, 3));
    request.sampling.temperature = static_cast<float>(Below(2));
    request.sampling.seed = Below(1000);
    request.priority = OneIn(3) ? Below(20) - 10 : 0;
    if (OneIn(3)) request.cache_salt = OneIn(2) ? "a" : "b";
    if (OneIn(2)) request.owner = OneIn(2) ? "a" : "b";
    request.bypass_prefix_cache = OneIn(8);
    if (OneIn(10)) request.deadline = now + absl::Seconds(Below(60));
    if (OneIn(10)) request.time_limit = absl::Seconds(1 + Below(60));
    return request;
  }

  Budget RandomAutoBudget() {
    Budget budget{.automatic = true};
    if (OneIn(3)) budget.chunk_size_min = model_.chunk_sizes.front();
    if (OneIn(3)) budget.chunk_size_max = model_.chunk_sizes.back();
    if (OneIn(4)) budget.kv_bytes_max = (1 + Below(6)) * kPageEntries * model_.bytes_per_entry;
    budget.quality_column = Below(3);
    if (OneIn(5)) {
      for (const int32_t size : model_.chunk_sizes) {
        if (OneIn(2)) budget.among.push_back(size);
      }
    }
    return budget;
  }

  void Disturb(Driver& driver) {
    if (requests_.empty() || !OneIn(4)) return;
    const RequestKey key = 1 + Below(static_cast<int32_t>(requests_.size()) + 1);
    const int32_t what = Below(6);
    Tell("disturbance ", what, " of request ", key);
    if (what == 0) driver.scheduler.Cancel(key, driver.now);
    if (what == 1) driver.scheduler.EndChoice(key, Below(3), driver.now);
    if (what == 2 || what == 3) driver.scheduler.SetPaused(key, true);
    if (what > 3) driver.scheduler.SetPaused(key, false);
  }

  // Order and "exactly once" are the story's own checks.
  void CheckEnd(const Story& story, const Request& request) {
    ASSERT_TRUE(story.finished);
    for (const auto& end : story.ends) EXPECT_TRUE(end);
    if (!story.started) {
      EXPECT_NE(story.reason(), FinishReason::kLength);
      return;
    }
    EXPECT_TRUE(request.budget.automatic || story.changes.empty());
    const std::vector<int32_t> allowed = AllowedChunkSizes(model_, request.budget);
    EXPECT_THAT(allowed, Contains(story.started->chunk_size));
    for (const BudgetChangedEvent& change : story.changes) {
      EXPECT_THAT(allowed, Contains(change.to_chunk_size));
    }
    EXPECT_EQ(story.finished->usage.budget_changes.size(), story.changes.size());
    const Story told = TellAlone(request, story.started->chunk_size);
    for (int32_t c = 0; c < std::ssize(story.ends); ++c) {
      const std::vector<TokenId> got = story.ids(c), full = told.ids(c);
      if (!story.changes.empty()) {
        CheckChanged(story, request, c);
        continue;
      }
      ASSERT_LE(got.size(), full.size());
      EXPECT_TRUE(std::equal(got.begin(), got.end(), full.begin()));
      EXPECT_TRUE(story.ends[c] != FinishReason::kLength || got.size() == full.size());
    }
    ASSERT_LE(story.scores.size(), told.scores.size());
    for (size_t i = 0; i < story.scores.size(); ++i) {
      EXPECT_EQ(story.scores[i].token.logprob, told.scores[i].token.logprob);
    }
  }

  Story TellAlone(const Request& request, int32_t chunk_size) {
    Request alone = request;
    alone.budget = {.chunk_size = chunk_size};
    alone.deadline = absl::InfiniteFuture();
    alone.time_limit = absl::InfiniteDuration();
    Driver quiet(model_, {.slots = 8, .kv_pages = 400, .step_rows_max = 500});
    quiet.executor.set_label(label_ + " alone");
    return quiet.Tell(alone);
  }

  // Between two changes the tokens are those of a fresh prefill at that chunk size, of all tokens
  // so far. (Choices of a request change together; a choice that lags behind `at_token` has the
  // former size up to there in the event, so only requests of one choice are replayed.)
  void CheckChanged(const Story& story, const Request& request, int32_t choice) {
    if (story.ends.size() > 1) return;
    const std::vector<TokenId> got = story.ids(choice);
    const auto prompt = static_cast<int32_t>(request.prompt.size());
    int32_t size = story.started->chunk_size, from = 0;
    for (size_t i = 0; i <= story.changes.size(); ++i) {
      const bool last = i == story.changes.size();
      const int32_t to =
          last ? static_cast<int32_t>(got.size())
               : std::min<int32_t>(std::ssize(got), story.changes[i].at_token - prompt);
      if (to > from) {
        Request part = request;
        part.prompt.insert(part.prompt.end(), got.begin(), got.begin() + from);
        part.stop.max_tokens = to - from;
        part.stop.min_tokens = std::clamp(request.stop.min_tokens - from, 0, to - from);
        const std::vector<TokenId> alone = TellAlone(part, size).ids();
        EXPECT_EQ(std::vector(got.begin() + from, got.begin() + to), alone) << "from " << from;
      }
      if (last) break;
      EXPECT_EQ(story.changes[i].from_chunk_size, size);
      size = story.changes[i].to_chunk_size;
      from = std::max(from, to);
    }
    EXPECT_EQ(story.finished->usage.chunk_size, size);
  }

  std::mt19937 random_;
  ModelGeometry model_;
  ScheduleLimits limits_;
  int depth_ = 0;
  std::map<RequestKey, Request> requests_;
  ScheduleTotals totals_;
  bool ended_at_bound_ = false;
  std::string label_;
};

int32_t FromEnvironment(const char* name, int32_t otherwise) {
  const char* const value = std::getenv(name);
  return value != nullptr ? std::atoi(value) : otherwise;
}

TEST(SchedulerProperty, AnyTrafficEndsWellAndLeavesEveryPageFree) {
  std::signal(SIGABRT, PrintStory);
  const int32_t only = FromEnvironment("CATSERVE_TRACE_SEED", 0);
  const int32_t traces = FromEnvironment("CATSERVE_TRACES", 10000);
  ScheduleTotals seen;
  for (int32_t seed = only > 0 ? only : 1; seed <= (only > 0 ? only : traces); ++seed) {
    Trace trace(seed);
    trace.Play();
    if (testing::Test::HasFailure()) FAIL() << story_so_far;
    seen.prefix_hit_tokens += trace.totals().prefix_hit_tokens;
    seen.budgets_coarsened += trace.totals().budgets_coarsened;
    seen.budgets_refined += trace.totals().budgets_refined;
    seen.preemptions += trace.totals().preemptions;
  }
  if (only > 0) return;
  // The traffic is worth the name: everything that can happen does, and often.
  EXPECT_GT(seen.preemptions, traces / 20);
  EXPECT_GT(seen.budgets_coarsened, traces / 50);
  EXPECT_GT(seen.budgets_refined, traces / 200);
  EXPECT_GT(seen.prefix_hit_tokens, traces * 10);
}

TEST(SchedulerProperty, ALoneRequestCannotTellWhetherAStepIsInFlight) {
  std::signal(SIGABRT, PrintStory);
  const int32_t only = FromEnvironment("CATSERVE_TRACE_SEED", 0);
  int at_bound = 0;
  for (int32_t seed = only > 0 ? only : 1; seed <= (only > 0 ? only : 2000); ++seed) {
    Trace trace(seed);
    trace.PlayAlone();
    if (testing::Test::HasFailure()) FAIL() << story_so_far;
    at_bound += trace.ended_at_bound();
  }
  EXPECT_TRUE(only > 0 || at_bound > 10) << "bounds of memory are met on the way";
}

TEST(SchedulerPropertyDeathTest, APlantedLeakIsFound) {
  EXPECT_DEATH(Trace(3).Play(/*plant_leak=*/true), "no request is left, yet 1 pages are used");
}

}  // namespace
}  // namespace catserve

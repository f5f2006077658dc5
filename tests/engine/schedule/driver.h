// Turns the scheduler's wheel by hand, with an executor that checks every plan, and writes down
// each request's story.
#pragma once

#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/schedule/scheduler.h"
#include "kernels/check.h"
#include "tests/engine/fake_executor.h"
#include "tests/engine/test_models.h"

namespace catserve {

// What a caller saw. Events that come out of order abort.
struct Story {
  std::optional<StartedEvent> started;
  std::vector<std::vector<SampleResult>> tokens;  // by choice
  std::vector<std::optional<FinishReason>> ends;  // by choice
  std::vector<SampleResult> scores;               // of tokens 1, 2, ..
  std::vector<BudgetChangedEvent> changes;
  int32_t pieces = 0;  // ScoresEvents
  int32_t preemptions = 0;
  std::optional<FinishedEvent> finished;

  std::vector<TokenId> ids(int32_t choice = 0) const {
    std::vector<TokenId> ids;
    for (const SampleResult& token : tokens[choice]) ids.push_back(token.token.id);
    return ids;
  }
  FinishReason reason() const { return finished->reason; }

  void operator()(const StartedEvent& e) {
    CATSERVE_CHECK(!started) << "started twice";
    started = e;
  }
  void operator()(const TokensEvent& e) {
    CATSERVE_CHECK(started && !ends[e.choice]) << "tokens before the start or after the end";
    tokens[e.choice].insert(tokens[e.choice].end(), e.tokens.begin(), e.tokens.end());
  }
  void operator()(const ChoiceEndEvent& e) {
    CATSERVE_CHECK(!ends[e.choice]) << "a choice ended twice";
    ends[e.choice] = e.reason;
  }
  void operator()(const ScoresEvent& e) {
    CATSERVE_CHECK(started && e.first == std::ssize(scores) + 1) << "scores out of order";
    scores.insert(scores.end(), e.scores.begin(), e.scores.end());
    ++pieces;
  }
  void operator()(const BudgetChangedEvent& e) {
    CATSERVE_CHECK(started && e.from_chunk_size != e.to_chunk_size) << "a change that is none";
    changes.push_back(e);
  }
  void operator()(const PreemptedEvent&) { ++preemptions; }
  void operator()(const FinishedEvent& e) {
    CATSERVE_CHECK(e.usage.preemptions == preemptions) << "a preemption was not told";
    finished = e;
  }
};

class Driver {
 public:
  Driver(const ModelGeometry& model, ScheduleLimits limits, int depth = 0)
      : scheduler(model, limits),
        executor(model, {.slots = limits.slots,
                         .kv_pages = limits.kv_pages,
                         .step_rows_max = limits.step_rows_max,
                         .pipeline_depth = depth}) {}

  RequestKey Add(const Request& request) {
    const RequestKey key = next_key_++;
    const bool score = request.task == Task::kScore;
    stories[key].tokens.resize(request.choices);
    stories[key].ends.resize(score ? 0 : request.choices);
    scheduler.Add(key, request, now);
    return key;
  }

  // One turn of the engine's loop, a second long. Returns the rows that were planned.
  int64_t Step() {
    now += absl::Seconds(1);
    const StepPlan plan = scheduler.Plan(now);
    if (!plan.empty()) {
      executor.Launch(plan);
      ++in_flight_;
    }
    Read(scheduler.TakeReports());
    if (on_plan) on_plan(plan);
    if (in_flight_ > (plan.empty() ? 0 : executor.PipelineDepth())) {
      const StepResult result = executor.Collect();
      --in_flight_;
      Read(scheduler.Commit(result, now));
    }
    return std::ssize(plan.rows);
  }

  // Until nothing is left to do. Returns the number of steps.
  int Run() {
    int steps = 0;
    for (; !scheduler.idle(); ++steps) {
      CATSERVE_CHECK(steps < 100000) << "requests wait for ever";
      Step();
    }
    CATSERVE_CHECK(scheduler.pool().held() == 0) << "pages leak";
    return steps;
  }
  void Steps(int count) {
    for (int i = 0; i < count; ++i) Step();
  }

  // The story of one request alone.
  Story Tell(const Request& request) {
    const RequestKey key = Add(request);
    Run();
    return stories[key];
  }

  void Read(std::vector<Report> reports) {
    for (Report& report : reports) {
      Story& story = stories[report.key];
      CATSERVE_CHECK(!story.finished) << "an event came after FinishedEvent";
      std::visit(story, report.event);
      if (on_report) on_report(report);
    }
  }

  Scheduler scheduler;
  FakeExecutor executor;
  absl::Time now = absl::FromUnixSeconds(1'000'000);
  std::map<RequestKey, Story> stories;
  std::function<void(const StepPlan&)> on_plan;  // while who runs in its slots is still there
  std::function<void(const Report&)> on_report;  // after its story was told

 private:
  RequestKey next_key_ = 1;
  int in_flight_ = 0;
};

}  // namespace catserve

// Decides what runs in each step. Pure: no thread, no clock, no I/O; the same calls give the same
// plans and events.
//
// Policy. First come, first served over a fixed number of slots: a request starts when every one of
// its choices has a slot and the pages for the largest length they can reach are unreserved, so
// nothing that runs is ever preempted. A step holds the running decodes first, then pieces of
// prefills and of texts to score, each in order of arrival. What does not fit into a step's bounds
// waits for the next.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "absl/time/time.h"
#include "engine/geometry.h"
#include "engine/schedule/budget.h"
#include "engine/schedule/page_pool.h"
#include "engine/schedule/request.h"
#include "engine/schedule/request_state.h"
#include "engine/schedule/step_builder.h"
#include "engine/step.h"

namespace catserve {

struct ScheduleLimits {
  int32_t slots = 0;
  int64_t kv_pages = 0;
  int32_t step_rows_max = 0;  // decoder rows, and as many compressor tokens, in a step
};

struct Report {
  RequestKey key = 0;
  Event event;
};

// Since the start.
struct ScheduleTotals {
  int64_t steps = 0;
  int64_t rows = 0;
  int64_t chunks_compressed = 0;
};

// Not thread-safe. Values of time never go back.
class Scheduler {
 public:
  // REQUIRES: limits as ValidateOptions (admission.h) accepts them.
  Scheduler(ModelGeometry model, ScheduleLimits limits);

  // REQUIRES: a request as ValidateRequest (admission.h) accepts it; a key never used before.
  void Add(RequestKey key, Request request, absl::Time now);
  // Ends a request and frees what it holds at once. Unknown keys are ignored.
  void Cancel(RequestKey key, absl::Time now) { End(key, FinishReason::kCancelled, now); }
  void CancelAll(FinishReason reason, absl::Time now);
  // Ends one choice with kStopToken, on the caller's behalf. Ignored if it does not run.
  void EndChoice(RequestKey key, int32_t choice, absl::Time now);

  // The next step, or an empty plan if there is nothing to run before the steps in flight are
  // committed. Ends what is past its deadline. REQUIRES: plans that are not empty are computed in
  // the order in which they were made.
  StepPlan Plan(absl::Time now);
  // Takes in the result of the oldest step not yet committed, and returns TakeReports().
  std::vector<Report> Commit(const StepResult& result, absl::Time now);
  // What happened since reports were last taken, in order.
  std::vector<Report> TakeReports();

  bool idle() const { return by_key_.empty() && in_flight_.empty(); }
  int32_t running() const { return static_cast<int32_t>(running_.size()); }
  int32_t waiting() const { return static_cast<int32_t>(waiting_.size()); }
  absl::Time NextLimit() const;  // the earliest deadline or time limit; InfiniteFuture if none
  const ScheduleTotals& totals() const { return totals_; }
  PagePool& pool() { return pool_; }  // for load reports, and for tests that break it

 private:
  using RequestPtr = std::shared_ptr<RequestState>;

  // Whose results a step brings, in the order of the plan's samples and scores.
  struct Expected {
    RequestPtr request;
    int32_t choice = 0;
    int32_t score_first = 0;  // kScore: tokens [score_first, score_first + score_count)
    int32_t score_count = 0;
  };
  struct InFlight {
    std::vector<Expected> samples;
    std::vector<Expected> scores;
    std::vector<Expected> prefills;  // max_tokens 0: bring nothing, and end their choice
  };

  // Planning.
  void StartWaiting();
  void Start(RequestState& request, const Grant& grant);
  void PlanDecodes(StepBuilder& step, InFlight& expected);
  void PlanPrefills(StepBuilder& step, InFlight& expected, absl::Time now);
  void Begin(RequestState& request, ChoiceState& choice, StepBuilder& step, absl::Time now);
  void PlanRows(const RequestPtr& request, int32_t index, StepBuilder& step, InFlight& expected);
  void PlanScore(const RequestPtr& request, StepBuilder& step, InFlight& expected);
  void CloseStep();  // notes what is held at its most, and takes the branches' pages back

  // Results and ends.
  void ReceiveSample(const Expected& expected, const SampleResult& sample, absl::Time now);
  void ReceiveScores(const Expected& expected, std::vector<SampleResult> scores, absl::Time now);
  void EndOverdue(absl::Time now);
  void End(RequestKey key, FinishReason reason, absl::Time now);
  void EndChoiceOf(RequestState& request, int32_t index, FinishReason reason, absl::Time now);
  void Finish(RequestState& request, FinishReason reason, absl::Time now);
  Usage UsageOf(const RequestState& request, absl::Time now) const;

  ModelGeometry model_;
  ScheduleLimits limits_;
  PagePool pool_;
  int64_t pages_reserved_ = 0;
  int64_t pages_spare_ = 0;  // unreserved and not lent to a branch of this step
  std::vector<int32_t> free_slots_;
  std::deque<RequestPtr> waiting_;   // in order of arrival
  std::vector<RequestPtr> running_;  // in order of start
  std::unordered_map<RequestKey, RequestPtr> by_key_;
  std::deque<InFlight> in_flight_;
  std::vector<Report> reports_;
  ScheduleTotals totals_;
};

}  // namespace catserve

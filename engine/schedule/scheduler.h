// Decides what runs in each step. Pure: no thread, no clock, no I/O; the same calls give the same
// plans and events.
//
// Requests of an owner take turns by arrival, a level of priority counting as a second
// (RequestState::Before); owners share what there is (WaitingLine). The first in line starts when
// every one of its choices has a slot and the forecast of memory has room for it; those behind it
// wait, so that it comes to its turn. Automatic budgets bend before anybody waits (budget.h). Where
// a forecast was wrong, the last in turn of the owner with most requests running is preempted: it
// loses its memory, keeps its turn and is computed anew later, mostly out of the prefix cache.
//
// A step holds first the running streams that just go on, then the chunks that close, longest
// waiting first, then pieces of prefills and of texts to score, the first in turn of each owner
// before the second of any. Beside streams, closings
// and prefills get only so much work that the streams keep their pace (scheduler_plan.cc).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "absl/time/time.h"
#include "engine/geometry.h"
#include "engine/schedule/budget.h"
#include "engine/schedule/memory_forecast.h"
#include "engine/schedule/page_pool.h"
#include "engine/schedule/prefix_cache.h"
#include "engine/schedule/request.h"
#include "engine/schedule/request_state.h"
#include "engine/schedule/step_builder.h"
#include "engine/schedule/waiting_line.h"
#include "engine/step.h"

namespace catserve {

struct ScheduleLimits {
  int32_t slots = 0;
  int64_t kv_pages = 0;
  int32_t step_rows_max = 0;      // decoder rows, and as many compressor tokens, in a step
  int32_t step_tokens_max = 256;  // work of a step, in decoder rows
  double compressor_token_rows = 0;
  std::vector<QualityColumn> quality;  // see Quality
};

// The least work, in decoder rows, that lets any prefill, closing chunk or block of a text to score
// go on: a step has room for one such piece for the chunks that close and one for the others,
// beside a row for each slot.
double LeastWork(const ModelGeometry& model, double compressor_token_rows);

// What the sequences that run have read, and the pages that a dense model would hold for it, in
// whole pages for each sequence, shared ones counted again.
struct TokensHeld {
  int64_t tokens = 0;
  int64_t dense_pages = 0;
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
  int64_t prefix_query_tokens = 0;
  int64_t prefix_hit_tokens = 0;
  int64_t budgets_coarsened = 0;
  int64_t budgets_refined = 0;
  int64_t preemptions = 0;
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
  // Ends one choice with kStopToken, on the caller's behalf. Ignored if nothing of it was seen yet.
  void EndChoice(RequestKey key, int32_t choice, absl::Time now);
  // A paused request gets no rows. Unknown keys are ignored.
  void SetPaused(RequestKey key, bool paused);

  // The next step, or an empty plan if there is nothing to run before the steps in flight are
  // committed. Ends what is past its deadline. REQUIRES: plans that are not empty are computed in
  // the order in which they were made.
  StepPlan Plan(absl::Time now);
  // Takes in the result of the oldest step not yet committed, and returns TakeReports().
  std::vector<Report> Commit(const StepResult& result, absl::Time now);
  // What happened since reports were last taken, in order.
  std::vector<Report> TakeReports();
  // Requests that started or ended waiting since they were last taken, each once.
  std::vector<RequestKey> TakeLeftQueue();

  bool idle() const { return by_key_.empty() && in_flight_.empty(); }
  int32_t running() const { return static_cast<int32_t>(running_.size()); }
  int32_t waiting() const { return waiting_.size(); }
  int32_t paused() const;
  TokensHeld tokens_held() const;
  absl::Time NextLimit() const;  // the earliest deadline or time limit; InfiniteFuture if none
  const ScheduleTotals& totals() const { return totals_; }
  PagePool& pool() { return pool_; }  // for tests that break it
  const PagePool& pool() const { return pool_; }
  RequestKey OwnerOf(int32_t slot) const;  // 0: nobody

 private:
  // Whose results a step brings, in the order of the plan's samples and scores.
  struct Expected {
    RequestPtr request;
    int32_t choice = 0;
    int32_t score_first = 0;  // kScore: tokens [score_first, score_first + score_count)
    int32_t score_count = 0;
  };
  // Tokens of chunks that a step compresses for a request.
  struct Compressed {
    RequestPtr request;
    int64_t tokens = 0;
  };
  struct InFlight {
    std::vector<Expected> samples;
    std::vector<Expected> scores;
    std::vector<Expected> prefills;  // max_tokens 0: bring nothing, and end their choice
    std::vector<Compressed> compressed;
  };
  // Chunk sizes that requests would have, where it is not the present one; kGone: none at all.
  using Changes = std::map<const RequestState*, int32_t>;
  static constexpr int32_t kGone = -1;

  // Planning rows (scheduler_plan.cc). Streams: choices that draw a token in most steps.
  int32_t PlanStreams(StepBuilder& step, InFlight& expected);
  void PlanPrefills(StepBuilder& step, InFlight& expected, int32_t streams, absl::Time now);
  std::vector<RequestPtr> PrefillsInTurn() const;
  bool MayPrefill(const RequestState& request, const ChoiceState& choice) const;
  void Begin(RequestState& request, ChoiceState& choice, StepBuilder& step, absl::Time now);
  void LookUp(RequestState& request, ChoiceState& choice, StepBuilder& step);
  bool PlanRows(const RequestPtr& request, int32_t index, StepBuilder& step, InFlight& expected);
  void PlanScore(const RequestPtr& request, StepBuilder& step, InFlight& expected);
  static void CountChunks(const RequestPtr& request, int64_t chunks, InFlight& expected);
  void CloseStep();  // keeps prefixes, notes what is held, takes the branches' pages back

  // Who holds memory, at which chunk size (scheduler_memory.cc, scheduler_forecast.cc).
  void StartWaiting();
  void Start(const RequestPtr& request, int32_t chunk_size);
  void NewSequence(RequestState& request, ChoiceState& choice);
  int32_t ExpectedLength(const RequestState& request, const ChoiceState& choice) const;
  Resident ResidentOf(const RequestState& request) const;
  void AddHoldings(const RequestState& request, int32_t chunk_size,
                   std::vector<Holding>& holdings) const;
  int64_t Forecast(std::vector<Holding> added, const Changes& changes) const;
  std::vector<Holding> Crowd(const RequestState& first) const;
  std::optional<int32_t> SizeThatFits(const RequestState& request, const Changes& changes) const;
  // A chunk size at which a waiting request has room to start, others having made it; if any.
  std::optional<int32_t> MakeRoomFor(const RequestState& request);
  std::optional<int32_t> FindRoom(const RequestState& request, Changes& changes) const;
  bool FitsWithoutPaused(const RequestState& request) const;
  std::vector<Resident> Bendable(const Changes& except, std::vector<RequestPtr>& owners) const;
  bool RelievePressure();  // false if it had to preempt
  int64_t PagesDemanded() const;
  bool CoarsenOne();
  bool PreemptPaused();
  bool PreemptLast();
  void Preempt(Line::iterator place);  // in running_
  void KeepBounds(absl::Time now);
  void RefineOne();
  void ChangeChunkSize(RequestState& request, int32_t chunk_size);
  void KeepPrefix(RequestState& request, ChoiceState& choice);
  void ReleaseSequence(RequestState& request, ChoiceState& choice);
  void ReleaseSlot(ChoiceState& choice);
  PrefixHit FindPrefix(const RequestState& request, const ChoiceState& choice,
                       int32_t chunk_size) const;
  int64_t PagesOf(const RequestState& request) const;  // distinct

  // Results and ends.
  static void ShareTime(const std::vector<Compressed>& shares, absl::Duration spent);
  void ReceiveSample(const Expected& expected, const SampleResult& sample, absl::Time now);
  void ReceiveScores(const Expected& expected, std::vector<SampleResult> scores, absl::Time now);
  void EndOverdue(absl::Time now);
  void End(RequestKey key, FinishReason reason, absl::Time now);
  void EndChoiceOf(RequestState& request, int32_t index, FinishReason reason, absl::Time now);
  void Finish(RequestState& request, FinishReason reason, absl::Time now);
  Usage UsageOf(const RequestState& request, absl::Time now) const;

  ModelGeometry model_;
  ScheduleLimits limits_;
  Quality quality_;
  LengthForecast lengths_;
  PagePool pool_;
  PrefixCache cache_;
  std::vector<int32_t> free_slots_;
  WaitingLine waiting_;
  Line running_;
  std::unordered_map<RequestKey, RequestPtr> by_key_;
  std::deque<InFlight> in_flight_;
  std::vector<Report> reports_;
  std::vector<RequestKey> left_queue_;
  ScheduleTotals totals_;
  bool room_changed_ = true;  // since the first in turn was last found not to fit
};

}  // namespace catserve

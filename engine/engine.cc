#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "engine/admission.h"
#include "engine/queue_gate.h"
#include "engine/schedule/scheduler.h"
#include "engine/snapshot.h"
#include "kernels/check.h"

namespace catserve {
namespace {

class RealClock : public Clock {
 public:
  absl::Time Now() override { return absl::Now(); }
};

// Waits until `done` holds or `limit` has passed; returns done().
template <typename Predicate>
bool WaitFor(std::condition_variable& changed, std::unique_lock<std::mutex>& lock,
             absl::Duration limit, Predicate done) {
  constexpr absl::Duration kLong = absl::Hours(24 * 365);  // chrono's sums overflow beyond
  return changed.wait_for(lock, absl::ToChronoNanoseconds(std::min(limit, kLong)), done);
}

}  // namespace

Clock& Clock::Real() {
  static RealClock clock;
  return clock;
}

class Engine::Impl {
 public:
  Impl(ModelGeometry model, StepExecutor& executor, const EngineOptions& options, Clock& clock)
      : model_(std::move(model)),
        executor_(executor),
        options_(options),
        clock_(clock),
        scheduler_(model_, {.slots = options.slots,
                            .kv_pages = options.kv_pages,
                            .step_rows_max = options.step_rows_max,
                            .step_tokens_max = options.step_tokens_max,
                            .compressor_token_rows = options.compressor_token_rows,
                            .quality = options.quality}),
        queue_(options.queue_requests_max) {
    thread_ = std::thread([this] { Run(); });
  }

  ~Impl() {
    Post([](Inbox& inbox) { inbox.stop = true; });
    thread_.join();
  }

  absl::StatusOr<RequestKey> Submit(Request request, EventSink sink);
  void Drain(absl::Duration limit);
  EngineLoad Load() const;
  const ModelGeometry& model() const { return model_; }

  void Cancel(RequestKey key) {
    Post([key](Inbox& inbox) { inbox.cancelled.push_back(key); });
  }
  void EndChoice(RequestKey key, int32_t choice) {
    Post([key, choice](Inbox& inbox) { inbox.ended_choices.emplace_back(key, choice); });
  }
  void SetPaused(RequestKey key, bool paused) {
    Post([key, paused](Inbox& inbox) { inbox.pauses.emplace_back(key, paused); });
  }

 private:
  struct Submission {
    RequestKey key;
    Request request;
    EventSink sink;
    absl::Time arrived;
  };
  // What other threads ask of the step thread.
  struct Inbox {
    std::vector<Submission> submissions;
    std::vector<RequestKey> cancelled;
    std::vector<std::pair<RequestKey, int32_t>> ended_choices;
    std::vector<std::pair<RequestKey, bool>> pauses;  // in order: the last one counts
    bool cancel_all = false;
    bool stop = false;
    bool empty() const {
      return submissions.empty() && cancelled.empty() && ended_choices.empty() && pauses.empty() &&
             !cancel_all && !stop;
    }
  };

  template <typename Change>
  void Post(Change change) {
    const std::lock_guard lock(mutex_);
    change(inbox_);
    wake_.notify_one();
  }

  // The step thread.
  void Run();
  void AcceptNewRequests();
  void Launch(const StepPlan& plan);
  void CollectOldest();
  void Publish(std::vector<Report> reports);
  void UpdateLoad();
  EngineLoad DescribeLoad() const;

  const ModelGeometry model_;
  StepExecutor& executor_;
  const EngineOptions options_;
  Clock& clock_;

  // The step thread's own.
  Scheduler scheduler_;
  std::unordered_map<RequestKey, EventSink> sinks_;
  int in_flight_ = 0;    // steps launched and not collected
  bool resting_ = true;  // the last plan was empty
  bool stopping_ = false;
  std::array<int64_t, kStepRowsBuckets> step_rows_{};
  LapTimer timer_;
  StepTimes times_;
  StepParts parts_;

  Snapshot<EngineLoad> load_{DescribeLoad()};  // without `waiting`: see Load

  mutable std::mutex mutex_;
  std::condition_variable wake_;      // the inbox is no longer empty
  std::condition_variable finished_;  // active_ fell
  Inbox inbox_;
  RequestKey next_key_ = 1;
  bool draining_ = false;
  int32_t active_ = 0;  // accepted and not finished
  // Accepted and not started, as far as the step thread has told. Written under mutex_.
  std::atomic<int32_t> waiting_ = 0;
  QueueGate queue_;

  std::thread thread_;  // last: it uses all of the above
};

// -- Any thread -----------------------------------------------------------------------------------

absl::StatusOr<RequestKey> Engine::Impl::Submit(Request request, EventSink sink) {
  if (auto s = ValidateRequest(model_, options_, request); !s.ok()) return s;
  const absl::Time arrived = clock_.Now();
  const std::lock_guard lock(mutex_);
  if (draining_) {
    return absl::UnavailableError("the server is draining and takes no new requests");
  }
  const RequestKey key = next_key_;
  if (auto s = queue_.Enter(key, request, arrived); !s.ok()) return s;
  ++next_key_;
  ++active_;
  ++waiting_;
  inbox_.submissions.push_back({key, std::move(request), std::move(sink), arrived});
  wake_.notify_one();
  return key;
}

void Engine::Impl::Drain(absl::Duration limit) {
  std::unique_lock lock(mutex_);
  draining_ = true;
  const auto all_finished = [this] { return active_ == 0; };
  if (WaitFor(finished_, lock, limit, all_finished)) return;
  inbox_.cancel_all = true;
  wake_.notify_one();
  finished_.wait(lock, all_finished);
}

EngineLoad Engine::Impl::Load() const {
  EngineLoad load = load_.Read();
  load.waiting = waiting_;
  return load;
}

// -- The step thread ------------------------------------------------------------------------------

void Engine::Impl::Run() {
  while (true) {
    AcceptNewRequests();
    timer_.Lap();  // what came before is nobody's work
    const StepPlan plan = scheduler_.Plan(clock_.Now());
    times_.plan += timer_.Lap();
    Launch(plan);
    Publish(scheduler_.TakeReports());
    if (in_flight_ > (plan.empty() ? 0 : executor_.PipelineDepth())) CollectOldest();
    if (stopping_ && scheduler_.idle()) return;
  }
}

void Engine::Impl::AcceptNewRequests() {
  Inbox inbox;
  {
    std::unique_lock lock(mutex_);
    if (resting_) {
      WaitFor(wake_, lock, scheduler_.NextLimit() - clock_.Now(),
              [this] { return !inbox_.empty(); });
    }
    std::swap(inbox, inbox_);
  }
  const absl::Time now = clock_.Now();
  for (Submission& s : inbox.submissions) {
    sinks_.emplace(s.key, std::move(s.sink));
    scheduler_.Add(s.key, std::move(s.request), s.arrived);
  }
  for (const RequestKey key : inbox.cancelled) scheduler_.Cancel(key, now);
  for (const auto& [key, choice] : inbox.ended_choices) scheduler_.EndChoice(key, choice, now);
  for (const auto& [key, paused] : inbox.pauses) scheduler_.SetPaused(key, paused);
  if (inbox.cancel_all) scheduler_.CancelAll(FinishReason::kCancelled, now);
  if (inbox.stop) {
    stopping_ = true;
    scheduler_.CancelAll(FinishReason::kFailed, now);
  }
}

void Engine::Impl::Launch(const StepPlan& plan) {
  resting_ = plan.empty() && in_flight_ == 0;  // a result to come may make room for a request
  if (plan.empty()) return;
  executor_.Launch(plan);
  ++in_flight_;
  const size_t bucket = std::bit_width(plan.rows.size() - 1);
  ++step_rows_[std::min(bucket, step_rows_.size() - 1)];
}

void Engine::Impl::CollectOldest() {
  const StepResult result = executor_.Collect();
  --in_flight_;
  times_ += result.times;
  parts_ = result.parts;
  timer_.Lap();
  Publish(scheduler_.Commit(result, clock_.Now()));
  times_.commit += timer_.Lap();
}

void Engine::Impl::Publish(std::vector<Report> reports) {
  UpdateLoad();  // first: who hears of an end may look at the load at once
  for (Report& report : reports) {
    const bool last = std::holds_alternative<FinishedEvent>(report.event);
    const auto sink = sinks_.find(report.key);
    sink->second(std::move(report.event));
    if (!last) continue;
    sinks_.erase(sink);
    const std::lock_guard lock(mutex_);
    --active_;
    finished_.notify_all();
  }
}

void Engine::Impl::UpdateLoad() {
  {
    const std::lock_guard lock(mutex_);
    waiting_ = scheduler_.waiting() + static_cast<int32_t>(inbox_.submissions.size());
    queue_.Leave(scheduler_.TakeLeftQueue(), clock_.Now());
  }
  load_.Publish(DescribeLoad());
}

EngineLoad Engine::Impl::DescribeLoad() const {
  const ScheduleTotals& totals = scheduler_.totals();
  const TokensHeld held = scheduler_.tokens_held();
  return {.running = scheduler_.running(),
          .waiting_max = options_.queue_requests_max,
          .paused = scheduler_.paused(),
          .kv_pages_used = scheduler_.pool().held(),
          .kv_pages_cached = scheduler_.pool().idle(),
          .kv_pages_total = scheduler_.pool().total(),
          .live_tokens = held.tokens,
          .dense_pages = held.dense_pages,
          .steps = totals.steps,
          .rows = totals.rows,
          .chunks_compressed = totals.chunks_compressed,
          .prefix_query_tokens = totals.prefix_query_tokens,
          .prefix_hit_tokens = totals.prefix_hit_tokens,
          .budgets_coarsened = totals.budgets_coarsened,
          .budgets_refined = totals.budgets_refined,
          .preemptions = totals.preemptions,
          .step_rows = step_rows_,
          .times = times_,
          .parts = parts_};
}

// -- The surface ----------------------------------------------------------------------------------

Engine::Engine(ModelGeometry model, StepExecutor& executor, const EngineOptions& options,
               Clock& clock) {
  const absl::Status valid = ValidateOptions(model, options);
  CATSERVE_CHECK(valid.ok()) << valid.message() << "; check the options before this";
  impl_ = std::make_unique<Impl>(std::move(model), executor, options, clock);
}
Engine::~Engine() = default;

absl::StatusOr<RequestKey> Engine::Submit(Request request, EventSink sink) {
  return impl_->Submit(std::move(request), std::move(sink));
}
void Engine::Cancel(RequestKey key) { impl_->Cancel(key); }
void Engine::EndChoice(RequestKey key, int32_t choice) { impl_->EndChoice(key, choice); }
void Engine::Pause(RequestKey key) { impl_->SetPaused(key, true); }
void Engine::Resume(RequestKey key) { impl_->SetPaused(key, false); }
void Engine::Drain(absl::Duration limit) { impl_->Drain(limit); }
EngineLoad Engine::Load() const { return impl_->Load(); }
const ModelGeometry& Engine::model() const { return impl_->model(); }

}  // namespace catserve

// The step thread: takes requests, plans and computes steps, reports events.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/geometry.h"
#include "engine/schedule/request.h"
#include "engine/step.h"

namespace catserve {

// Time as the engine sees it; a test sets it by hand. Now() may be called from any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() = 0;
  static Clock& Real();
};

struct EngineOptions {
  int32_t slots = 32;                // sequences that run at once
  int32_t queue_requests_max = 256;  // see QueueGate
  int64_t kv_pages = 0;              // pages the executor's KV memory holds
  int32_t step_rows_max = 1024;      // what the executor can hold: decoder rows in a step, and as
                                     // many compressor tokens
  int32_t step_tokens_max = 256;     // work of a step, in decoder rows
  double compressor_token_rows = 0;  // work of one compressor token, in decoder rows
  // See Quality (schedule/budget.h).
  std::vector<QualityColumn> quality;
};

// Steps are counted by their decoder rows: at most 1, 2, 4, ... 65536.
inline constexpr int kStepRowsBuckets = 17;

// A snapshot for GetLoad and metrics; never waits for a step, nor a step for it.
struct EngineLoad {
  int32_t running = 0;          // requests with at least one sequence in a slot
  int32_t waiting = 0;          // requests in the queue
  int32_t waiting_max = 0;      // that may wait
  int32_t paused = 0;           // running requests whose readers are behind
  int64_t kv_pages_used = 0;    // held by sequences
  int64_t kv_pages_cached = 0;  // held by the prefix cache alone: given up when others need them
  int64_t kv_pages_total = 0;
  int64_t live_tokens = 0;  // read by the sequences that run
  int64_t dense_pages = 0;  // that a dense model would hold for them, shared ones counted again
  int64_t steps = 0;
  int64_t rows = 0;                 // decoder rows run since the start
  int64_t chunks_compressed = 0;    // since the start, as all below
  int64_t prefix_query_tokens = 0;  // of prompts looked up in the prefix cache
  int64_t prefix_hit_tokens = 0;    // of those, found
  int64_t budgets_coarsened = 0;    // requests whose chunk size grew
  int64_t budgets_refined = 0;      // requests whose chunk size fell
  int64_t preemptions = 0;
  // By rows: the first bucket not too small for it counts a step.
  std::array<int64_t, kStepRowsBuckets> step_rows{};
  StepTimes times;
  StepParts parts;
};

// Thread-safe. Owns the step thread, from construction to destruction; the destructor ends what
// still runs with kFailed.
class Engine {
 public:
  // REQUIRES: executor and clock outlive the engine; options as ValidateOptions (admission.h)
  // accepts them.
  Engine(ModelGeometry model, StepExecutor& executor, const EngineOptions& options,
         Clock& clock = Clock::Real());
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Checks the request against the model and the limits (see admission.h) and queues it. Errors:
  // INVALID_ARGUMENT naming the field and what is allowed, RESOURCE_EXHAUSTED when the queue is
  // full or too long for the deadline (queue_gate.h; RetryAfter, admission.h, tells when to come
  // back), UNAVAILABLE while draining. After OK
  // the sink gets its events; FinishedEvent comes last.
  absl::StatusOr<RequestKey> Submit(Request request, EventSink sink);

  // Ends the request with kCancelled within one step. Unknown or finished keys are ignored.
  void Cancel(RequestKey key);

  // Ends one choice of a request (its text met a stop string) with kStopToken, within one step; the
  // request finishes when its last choice does. Unknown, finished or queued ones are ignored.
  void EndChoice(RequestKey key, int32_t choice);

  // Stops computing a request whose reader is behind, within one step, and goes on with it. A
  // paused request keeps its memory unless others need it; its deadline and time limit go on.
  // Unknown and finished keys are ignored.
  void Pause(RequestKey key);
  void Resume(RequestKey key);

  // Refuses new requests, and returns once all accepted ones have finished or `limit` has passed
  // (then the rest are cancelled). Safe to call more than once.
  void Drain(absl::Duration limit);

  EngineLoad Load() const;
  const ModelGeometry& model() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace catserve

// The measurements and the trace of one streaming request.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>

#include "absl/time/time.h"
#include "engine/schedule/request.h"
#include "server/metrics.h"
#include "server/request_trace.h"

namespace catserve {

// An event and when the step thread reported it.
struct TimedEvent {
  Event event;
  absl::Time at;
};

// Reports as it observes. Used by one thread at a time. One that is destroyed without an End was of
// a request that was refused: it leaves no trace.
class RequestMeter {
 public:
  // REQUIRES: metrics outlives the meter.
  RequestMeter(Metrics& metrics, RequestTrace trace);
  ~RequestMeter();
  RequestMeter(const RequestMeter&) = delete;
  RequestMeter& operator=(const RequestMeter&) = delete;

  void Observe(const TimedEvent& timed);
  void Paused(bool paused, absl::Time at);  // its reader is behind, or no longer
  void End(grpc::StatusCode code, absl::Time at);

 private:
  void On(const StartedEvent& started, absl::Time at);
  void On(const TokensEvent& tokens, absl::Time at);
  void On(const ScoresEvent& scores, absl::Time at);
  void On(const BudgetChangedEvent& change, absl::Time at);
  void On(const PreemptedEvent& preempted, absl::Time at);
  void On(const ChoiceEndEvent& /*end*/, absl::Time /*at*/) {}
  void On(const FinishedEvent& finished, absl::Time at);
  void HasResult(absl::Time at);

  Metrics& metrics_;
  const char* const method_;
  const absl::Time received_;
  const std::shared_ptr<LiveTrace> trace_;
  TokenCounters counters_;  // of its chunk size
  bool started_ = false;
  bool has_result_ = false;
  std::map<int32_t, absl::Time> last_token_;  // by choice
};

}  // namespace catserve

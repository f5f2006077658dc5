// The measurements of one streaming request.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "absl/time/time.h"
#include "engine/schedule/request.h"
#include "server/metrics.h"

namespace catserve {

// An event and when the step thread reported it.
struct TimedEvent {
  Event event;
  absl::Time at;
};

// Reports as it observes. Used by one thread at a time.
class RequestMeter {
 public:
  // `method`: a literal, "Generate" or "Score".
  RequestMeter(Metrics& metrics, const char* method, absl::Time received)
      : metrics_(metrics), method_(method), received_(received) {}

  void Observe(const TimedEvent& timed);
  void End(grpc::StatusCode code) { metrics_.CountRequest(method_, code); }

 private:
  void ObserveTokens(const TokensEvent& tokens, absl::Time at);

  Metrics& metrics_;
  const char* const method_;
  const absl::Time received_;
  bool first_token_seen_ = false;
  std::map<int32_t, absl::Time> last_token_;  // by choice
};

}  // namespace catserve

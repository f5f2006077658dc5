// What the engine accepts: every bound that a request must keep, and the words that refuse it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/geometry.h"
#include "engine/schedule/request.h"

namespace catserve {

inline constexpr int32_t kChoicesMax = 16;
inline constexpr int32_t kLogprobsMax = 20;
inline constexpr int32_t kLogitBiasMax = 1024;
inline constexpr int32_t kStopIdsMax = 128;  // the caller's (at most 64) and the model's own
inline constexpr int32_t kPriorityMax = 100;
inline constexpr float kTemperatureMax = 100;
inline constexpr float kRepetitionPenaltyMax = 10;
inline constexpr float kCountPenaltyMax = 2;  // presence and frequency
inline constexpr float kBiasMax = 100;

// OK if the options can serve the model at all. Errors: INVALID_ARGUMENT naming the option and the
// least value that works.
absl::Status ValidateOptions(const ModelGeometry& model, const EngineOptions& options);

// OK if the request keeps every bound and could run on an empty server. Errors: INVALID_ARGUMENT
// naming the field as the public API spells it, its value and what is allowed.
absl::Status ValidateRequest(const ModelGeometry& model, const EngineOptions& options,
                             const Request& request);

// RESOURCE_EXHAUSTED: `why`, to be tried again after `retry_after`.
absl::Status ComeBack(const std::string& why, absl::Duration retry_after);

// RESOURCE_EXHAUSTED: `waiting` requests wait where `requests_max` may; to be tried again after
// `retry_after`.
absl::Status QueueFull(int32_t requests_max, int32_t waiting, absl::Duration retry_after);

// What a request would have to wait for.
struct QueueAhead {
  int32_t requests = 0;  // that wait, of everybody
  int64_t work = 0;      // tokens (LargestWork) of those that come before it for certain
  absl::Duration wait;   // for them, as estimated
};

// RESOURCE_EXHAUSTED: the wait is longer than the `left` before the deadline; to be tried again
// when the queue has become short enough. Not DEADLINE_EXCEEDED: the deadline has not passed,
// nothing was tried, and the same request may succeed elsewhere or later.
absl::Status Hopeless(const QueueAhead& ahead, absl::Duration left);

// When a refused request may be tried again, if the refusal says so.
std::optional<absl::Duration> RetryAfter(const absl::Status& status);

}  // namespace catserve

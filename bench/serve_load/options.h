// What a run of serve_load is asked to do, checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/serve_load/workload.h"
#include "catserve/v1/model.pb.h"

namespace catserve {

inline constexpr int32_t kInFlightMax = 4096;
inline constexpr int32_t kRequestsMax = 200'000;

// A request is good if it came to its end and met both. 0: any time is good enough.
struct Objective {
  double ttft_ms = 0;             // from its arrival to its first token
  double inter_token_p99_ms = 0;  // the 99th percentile of its own gaps
};

struct LoadOptions {
  std::string server;           // host:port on this machine's loopback
  std::vector<Phase> phases;    // open loop; empty: closed loop
  int32_t concurrency = 0;      // closed loop: requests in flight
  int32_t requests_max = 0;     // sent in all, at most
  double duration_seconds = 0;  // how long requests are sent
  double warmup_seconds = 0;    // of these, left out of every figure
  double drain_seconds = 0;     // how long the last requests may take before they are cancelled
  double patience_ms = 0;       // a client without a token for so long gives up; 0: never
  double slow_pause_ms = 0;     // between two reads of a slow reader
  double temperature = 0;       // 0: greedy
  bool bypass_prefix_cache = false;
  int32_t in_flight_max = 0;
  int32_t poll_ms = 0;  // between two looks at the server's load
  WorkloadSpec workload;
  Objective objective;
  std::string name;           // in front of each name=value
  std::string json;           // a file; empty: none
  bool record_calls = false;  // the JSON lists every call with the time of each token

  bool open_loop() const { return !phases.empty(); }
};

// From the flags. Errors: INVALID_ARGUMENT, one line that names the flag and the remedy.
absl::StatusOr<LoadOptions> ReadLoadFlags();

// What cannot be known before the server has told of its model: lengths within the context, chunk
// sizes that it offers. Takes the size of the vocabulary from the model.
absl::Status FitToModel(const v1::GetModelResponse& model, LoadOptions& options);

// OK if `address` is host:port with a host that only this machine can be.
absl::Status CheckLoopback(const std::string& address);

}  // namespace catserve

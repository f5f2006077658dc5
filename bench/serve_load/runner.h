// Sends a workload to a server and keeps what came back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/serve_load/call.h"
#include "bench/serve_load/options.h"
#include "catserve/v1/model.pb.h"

namespace catserve {

// The run at one moment, and the server's own view of it.
struct Sample {
  double at = 0;  // seconds since the start
  int64_t sent = 0;
  int64_t done = 0;
  int64_t tokens = 0;
  int32_t server_running = 0;
  int32_t server_waiting = 0;
  int64_t kv_pages_used = 0;    // held by sequences
  int64_t kv_pages_cached = 0;  // held by the prefix cache alone
  // Since the server's start.
  int64_t preemptions = 0;
  int64_t budgets_coarsened = 0;
  int64_t budgets_refined = 0;
};

struct RunResult {
  v1::GetModelResponse model;
  std::vector<CallRecord> calls;  // in the order of their arrival
  std::vector<Sample> samples;    // every --poll_ms
  int64_t kv_pages_total = 0;
  double send_seconds = 0;  // from the start until nothing more was sent
};

// What the server says of its model. Errors: UNAVAILABLE if it cannot be reached.
absl::StatusOr<v1::GetModelResponse> AskModel(const std::string& server);

// Runs to the end, however long the server takes (bounded by the options' limits). A progress line
// goes to stderr once a second. REQUIRES: options fit the model.
RunResult RunLoad(const LoadOptions& options);

}  // namespace catserve

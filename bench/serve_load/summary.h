// What a run's records say, as figures. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bench/serve_load/options.h"
#include "bench/serve_load/percentiles.h"
#include "bench/serve_load/runner.h"

namespace catserve {

struct PhaseSummary {
  Phase phase;
  int64_t requests = 0;  // that arrived in it
  double finished_per_second = 0;
  double tokens_per_second = 0;
  double good_per_second = 0;
};

// Rates are over the window: from the end of the warm-up until nothing more was sent. Requests are
// those that arrived within it; tokens those that came within it.
struct Summary {
  double window_seconds = 0;
  int64_t requests = 0;
  int64_t finished = 0;   // all their tokens came
  int64_t good = 0;       // of these, within the objective
  int64_t cancelled = 0;  // by the client, as asked
  int64_t gave_up = 0;    // by the client: no token came in time
  int64_t cut = 0;        // not finished when the run was over
  int64_t failed = 0;     // refused, or ended otherwise than asked
  int64_t not_sent = 0;   // too many in flight
  double offered_per_second = 0;
  double finished_per_second = 0;  // requests that ended within the window
  double good_per_second = 0;
  double tokens_per_second = 0;
  Percentiles ttft_ms, inter_token_ms, end_to_end_ms;
  Percentiles send_lag_ms;               // how late this client was: large values spoil the others
  std::map<std::string, int64_t> codes;  // of the calls' ends
  std::map<std::string, int64_t> reasons;       // of the streams' ends
  std::map<int32_t, int64_t> chunk_sizes;       // at the start
  std::map<int32_t, int64_t> chunk_sizes_last;  // at the end
  int64_t budget_changes = 0;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t tokens = 0;
  int64_t kv_pages_peak = 0, kv_pages_total = 0;
  int32_t running_peak = 0, waiting_peak = 0;  // as the server told, like what follows
  int64_t preemptions = 0, budgets_coarsened = 0, budgets_refined = 0;  // during the run
  std::vector<PhaseSummary> phases;                                     // of an open loop
};

// Milliseconds between one token and the next; tokens of one message are 0 apart.
std::vector<double> GapsMs(const CallRecord& call);

// All tokens came, and none of the workload's own wishes ended the call early.
bool Finished(const CallRecord& call);
bool MeetsObjective(const CallRecord& call, const Objective& objective);

Summary Summarise(const LoadOptions& options, const RunResult& run);

}  // namespace catserve

#include "bench/serve_load/summary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/status/status.h"

namespace catserve {
namespace {

struct Window {
  double from = 0, to = 0;

  bool Has(double at) const { return at >= from && at < to; }
  double Rate(int64_t count) const {
    return to > from ? static_cast<double>(count) / (to - from) : 0;
  }
};

Window WindowOf(const LoadOptions& options, const RunResult& run) {
  double last = 0;
  for (const CallRecord& call : run.calls) last = std::max(last, call.end);
  // A closed loop that ran out of requests is over with the last of them, which still counts.
  last = std::nextafter(last, std::numeric_limits<double>::infinity());
  const double to =
      options.open_loop() ? options.duration_seconds : std::min(options.duration_seconds, last);
  return {options.warmup_seconds, to};
}

struct Counts {
  int64_t requests = 0, ended = 0, good = 0, tokens = 0;
};

Counts CountWithin(const LoadOptions& options, const RunResult& run, const Window& window) {
  Counts counts;
  for (const CallRecord& call : run.calls) {
    if (window.Has(call.arrival)) {
      ++counts.requests;
      counts.good += MeetsObjective(call, options.objective) ? 1 : 0;
    }
    counts.ended += Finished(call) && window.Has(call.end) ? 1 : 0;
    for (const double at : call.token_times) counts.tokens += window.Has(at) ? 1 : 0;
  }
  return counts;
}

// Counts how one request that arrived within the window came to its end.
void CountEnd(const CallRecord& call, Summary& out) {
  if (!call.sent_at_all) {
    ++out.not_sent;
    return;
  }
  if (Finished(call)) {
    ++out.finished;
  } else if (call.gave_up) {
    ++out.gave_up;
  } else if (call.cut) {
    ++out.cut;
  } else if (call.cancelled) {
    ++out.cancelled;
  } else {
    ++out.failed;
  }
  ++out.codes[absl::StatusCodeToString(static_cast<absl::StatusCode>(call.code))];
  if (call.reason != v1::FINISH_REASON_UNSPECIFIED) {
    ++out.reasons[v1::FinishReason_Name(call.reason).substr(sizeof("FINISH_REASON_") - 1)];
  }
  out.prompt_tokens += call.shot.lengths.prompt;
  out.cached_tokens += call.cached_tokens;
  out.tokens += static_cast<int64_t>(call.token_times.size());
  out.budget_changes += call.budget_changes;
  if (call.chunk_size_first > 0) ++out.chunk_sizes[call.chunk_size_first];
  if (call.chunk_size_last > 0) ++out.chunk_sizes_last[call.chunk_size_last];
}

void SummariseSamples(const RunResult& run, Summary& out) {
  out.kv_pages_total = run.kv_pages_total;
  if (run.samples.empty()) return;
  const Sample &first = run.samples.front(), &last = run.samples.back();
  out.preemptions = last.preemptions - first.preemptions;
  out.budgets_coarsened = last.budgets_coarsened - first.budgets_coarsened;
  out.budgets_refined = last.budgets_refined - first.budgets_refined;
  for (const Sample& sample : run.samples) {
    out.kv_pages_peak = std::max(out.kv_pages_peak, sample.kv_pages_used);
    out.running_peak = std::max(out.running_peak, sample.server_running);
    out.waiting_peak = std::max(out.waiting_peak, sample.server_waiting);
  }
}

void SummarisePhases(const LoadOptions& options, const RunResult& run, Summary& out) {
  double from = 0;
  for (const Phase& phase : options.phases) {
    const Window window = {from, from + phase.seconds};
    const Counts counts = CountWithin(options, run, window);
    out.phases.push_back({phase, counts.requests, window.Rate(counts.ended),
                          window.Rate(counts.tokens), window.Rate(counts.good)});
    from = window.to;
  }
}

}  // namespace

std::vector<double> GapsMs(const CallRecord& call) {
  std::vector<double> gaps;
  for (size_t i = 1; i < call.token_times.size(); ++i) {
    gaps.push_back(1e3 * (call.token_times[i] - call.token_times[i - 1]));
  }
  return gaps;
}

bool Finished(const CallRecord& call) {
  return call.sent_at_all && call.code == grpc::StatusCode::OK &&
         call.reason == v1::FINISH_REASON_LENGTH;
}

bool MeetsObjective(const CallRecord& call, const Objective& objective) {
  if (!Finished(call) || call.token_times.empty()) return false;
  const double ttft = 1e3 * (call.token_times.front() - call.arrival);
  if (objective.ttft_ms > 0 && ttft > objective.ttft_ms) return false;
  return objective.inter_token_p99_ms <= 0 ||
         PercentilesOf(GapsMs(call)).p99 <= objective.inter_token_p99_ms;
}

Summary Summarise(const LoadOptions& options, const RunResult& run) {
  Summary out;
  const Window window = WindowOf(options, run);
  std::vector<double> ttft, gaps, end_to_end, lag;
  for (const CallRecord& call : run.calls) {
    if (!window.Has(call.arrival)) continue;
    CountEnd(call, out);
    lag.push_back(1e3 * (call.sent - call.arrival));
    if (call.token_times.empty()) continue;
    ttft.push_back(1e3 * (call.token_times.front() - call.arrival));
    const std::vector<double> own = GapsMs(call);
    gaps.insert(gaps.end(), own.begin(), own.end());
    if (Finished(call)) end_to_end.push_back(1e3 * (call.end - call.arrival));
  }
  const Counts counts = CountWithin(options, run, window);
  out.window_seconds = std::max(0.0, window.to - window.from);
  out.requests = counts.requests;
  out.good = counts.good;
  out.offered_per_second = window.Rate(counts.requests);
  out.finished_per_second = window.Rate(counts.ended);
  out.good_per_second = window.Rate(counts.good);
  out.tokens_per_second = window.Rate(counts.tokens);
  out.ttft_ms = PercentilesOf(std::move(ttft));
  out.inter_token_ms = PercentilesOf(std::move(gaps));
  out.end_to_end_ms = PercentilesOf(std::move(end_to_end));
  out.send_lag_ms = PercentilesOf(std::move(lag));
  SummariseSamples(run, out);
  SummarisePhases(options, run, out);
  return out;
}

}  // namespace catserve

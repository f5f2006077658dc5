#include "server/request_meter.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "prometheus/counter.h"
#include "server/log.h"

namespace catserve {
namespace {

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

// From `from`, if it was reached, to `to`, or to the end of what was not.
double SecondsBetween(std::optional<absl::Time> from, std::optional<absl::Time> to,
                      absl::Time end) {
  return from ? Seconds(to.value_or(end) - *from) : 0;
}

void LogEnd(const RequestTrace& t) {
  const absl::Time computed = *t.computed;
  LogInfo("request", {{"method", t.method},
                      {"request_id", t.request_id},
                      {"trace_id", t.trace_id},
                      {"owner", t.owner},
                      {"code", t.code},
                      {"reason", t.reason},
                      {"prompt_tokens", t.prompt_tokens},
                      {"cached_tokens", t.cached_tokens},
                      {"generated_tokens", t.generated_tokens},
                      {"chunk_size", t.chunk_size},
                      {"queue_seconds", Seconds(t.started.value_or(computed) - t.received)},
                      {"prefill_seconds", SecondsBetween(t.started, t.first_result, computed)},
                      {"prefill_pieces", t.prefill_pieces},
                      {"decode_seconds", SecondsBetween(t.first_result, computed, computed)},
                      {"chunks_compressed", t.chunks_compressed},
                      {"compress_seconds", Seconds(t.compressing)},
                      {"budget_changes", t.budget_changes},
                      {"preemptions", t.preemptions},
                      {"kv_bytes_peak", t.kv_bytes_peak},
                      {"seconds", Seconds(*t.ended - t.received)}});
}

}  // namespace

RequestMeter::RequestMeter(Metrics& metrics, RequestTrace trace)
    : metrics_(metrics),
      method_(trace.method),
      received_(trace.received),
      trace_(metrics.traces().Begin(std::move(trace))) {}

RequestMeter::~RequestMeter() { metrics_.traces().Remove(*trace_); }

void RequestMeter::Observe(const TimedEvent& timed) {
  std::visit([&](const auto& event) { On(event, timed.at); }, timed.event);
}

void RequestMeter::On(const StartedEvent& started, absl::Time at) {
  started_ = true;
  counters_ = metrics_.CountersOf(started.chunk_size);
  counters_.prompt->Increment(started.prompt_tokens);
  counters_.cached->Increment(started.cached_tokens);
  trace_->Update([&](RequestTrace& trace) {
    trace.started = at;
    trace.cached_tokens = started.cached_tokens;
    trace.chunk_size = started.chunk_size;
    trace.preempted = false;
  });
}

void RequestMeter::HasResult(absl::Time at) {
  if (std::exchange(has_result_, true)) return;
  trace_->Update([&](RequestTrace& trace) { trace.first_result = at; });
}

void RequestMeter::On(const TokensEvent& tokens, absl::Time at) {
  if (tokens.tokens.empty()) return;
  const auto count = static_cast<int64_t>(tokens.tokens.size());
  if (!has_result_) metrics_.ObserveTimeToFirstToken(at - received_);
  HasResult(at);
  counters_.generated->Increment(static_cast<double>(count));
  trace_->Update([&](RequestTrace& trace) {
    trace.generated_tokens += count;
    trace.preempted = false;
  });
  const auto [last, first_of_choice] = last_token_.emplace(tokens.choice, at);
  if (first_of_choice) return;
  for (int64_t i = 0; i < count; ++i) metrics_.ObserveInterToken((at - last->second) / count);
  last->second = at;
}

void RequestMeter::On(const ScoresEvent& /*scores*/, absl::Time at) {
  HasResult(at);
  trace_->Update([](RequestTrace& trace) { trace.preempted = false; });
}

void RequestMeter::On(const BudgetChangedEvent& change, absl::Time at) {
  counters_ = metrics_.CountersOf(change.to_chunk_size);
  trace_->Update([&](RequestTrace& trace) {
    trace.chunk_size = change.to_chunk_size;
    trace.Mark({TraceMark::Kind::kBudgetChanged, at, change.from_chunk_size, change.to_chunk_size});
  });
}

void RequestMeter::On(const PreemptedEvent& /*preempted*/, absl::Time at) {
  trace_->Update([at](RequestTrace& trace) {
    trace.preempted = true;
    trace.Mark({.kind = TraceMark::Kind::kPreempted, .at = at});
  });
}

void RequestMeter::On(const FinishedEvent& finished, absl::Time at) {
  const Usage& usage = finished.usage;
  RequestTimes times{.queued = usage.queued, .whole = at - received_};
  if (started_) times.prefilling = usage.prefilling;
  if (has_result_) times.decoding = usage.decoding;
  metrics_.ObserveTimes(method_, times);
  trace_->Update([&](RequestTrace& trace) {
    trace.computed = at;
    trace.reason = ReasonName(finished.reason);
    trace.prefill_pieces = usage.prefill_pieces;
    trace.chunks_compressed = usage.chunks_compressed;
    trace.compressing = usage.compressing;
    trace.kv_bytes_peak = usage.kv_bytes_peak;
    trace.preemptions = usage.preemptions;
    trace.budget_changes = static_cast<int32_t>(usage.budget_changes.size());
  });
}

void RequestMeter::Paused(bool paused, absl::Time at) {
  trace_->Update([&](RequestTrace& trace) {
    trace.paused = paused;
    trace.Mark({.kind = paused ? TraceMark::Kind::kPaused : TraceMark::Kind::kResumed, .at = at});
  });
}

void RequestMeter::End(grpc::StatusCode code, absl::Time at) {
  metrics_.CountRequest(method_, code);
  trace_->Update([&](RequestTrace& trace) {
    trace.ended = at;
    trace.code = CodeName(code);
  });
  RequestTrace ended = trace_->Read();
  metrics_.traces().Remove(*trace_);
  if (metrics_.logs_requests()) LogEnd(ended);
  metrics_.traces().Keep(std::move(ended));
}

}  // namespace catserve

#include "bench/serve_load/report.h"

#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"

namespace catserve {
namespace {

using nlohmann::json;

std::string Times(const char* what, const Percentiles& p) {
  return absl::StrFormat("| %-18s | %9.1f | %9.1f | %9.1f | %9.1f | %7d |\n", what, p.p50, p.p90,
                         p.p99, p.max, p.count);
}

template <typename Map>
std::string Counts(const char* what, const Map& counts) {
  if (counts.empty()) return "";
  return absl::StrCat(what, ": ", absl::StrJoin(counts, ", ", absl::PairFormatter(" x ")), "\n");
}

json ToJson(const Percentiles& p) {
  return {{"count", p.count}, {"p50", p.p50}, {"p90", p.p90}, {"p99", p.p99}, {"max", p.max}};
}

template <typename Map>
json ToJson(const Map& counts) {
  json object = json::object();
  for (const auto& [key, count] : counts) object[absl::StrCat(key)] = count;
  return object;
}

json ToJson(const CallRecord& call) {
  return {{"index", call.shot.index},
          {"prompt_tokens", call.shot.lengths.prompt},
          {"generated_tokens", call.shot.lengths.generated},
          {"arrival", call.arrival},
          {"end", call.end},
          {"code", static_cast<int>(call.code)},
          {"reason", v1::FinishReason_Name(call.reason)},
          {"message", call.message},
          {"chunk_size", call.chunk_size_first},
          {"chunk_size_last", call.chunk_size_last},
          {"cached_tokens", call.cached_tokens},
          {"budget_changes", call.budget_changes},
          {"kv_bytes_peak", call.kv_bytes_peak},
          {"queued_seconds", call.queued_seconds},
          {"token_times", call.token_times}};
}

json ToJson(const Sample& s) {
  return {{"at", s.at},
          {"sent", s.sent},
          {"done", s.done},
          {"tokens", s.tokens},
          {"running", s.server_running},
          {"waiting", s.server_waiting},
          {"kv_pages_used", s.kv_pages_used},
          {"kv_pages_cached", s.kv_pages_cached}};
}

json ToJson(const Summary& s) {
  json phases = json::array();
  for (const PhaseSummary& p : s.phases) {
    phases.push_back({{"rate", p.phase.rate},
                      {"seconds", p.phase.seconds},
                      {"requests", p.requests},
                      {"finished_per_second", p.finished_per_second},
                      {"tokens_per_second", p.tokens_per_second},
                      {"good_per_second", p.good_per_second}});
  }
  return {{"window_seconds", s.window_seconds},
          {"requests", s.requests},
          {"finished", s.finished},
          {"good", s.good},
          {"cancelled", s.cancelled},
          {"gave_up", s.gave_up},
          {"cut", s.cut},
          {"failed", s.failed},
          {"not_sent", s.not_sent},
          {"offered_per_second", s.offered_per_second},
          {"finished_per_second", s.finished_per_second},
          {"good_per_second", s.good_per_second},
          {"tokens_per_second", s.tokens_per_second},
          {"ttft_ms", ToJson(s.ttft_ms)},
          {"inter_token_ms", ToJson(s.inter_token_ms)},
          {"end_to_end_ms", ToJson(s.end_to_end_ms)},
          {"send_lag_ms", ToJson(s.send_lag_ms)},
          {"codes", ToJson(s.codes)},
          {"reasons", ToJson(s.reasons)},
          {"chunk_sizes", ToJson(s.chunk_sizes)},
          {"chunk_sizes_last", ToJson(s.chunk_sizes_last)},
          {"budget_changes", s.budget_changes},
          {"prompt_tokens", s.prompt_tokens},
          {"cached_tokens", s.cached_tokens},
          {"tokens", s.tokens},
          {"kv_pages_peak", s.kv_pages_peak},
          {"kv_pages_total", s.kv_pages_total},
          {"running_peak", s.running_peak},
          {"waiting_peak", s.waiting_peak},
          {"preemptions", s.preemptions},
          {"budgets_coarsened", s.budgets_coarsened},
          {"budgets_refined", s.budgets_refined},
          {"phases", std::move(phases)}};
}

json ModelJson(const v1::GetModelResponse& model) {
  return {{"name", model.name()},
          {"kind", model.kind()},
          {"parameters", model.parameters()},
          {"context_limit", model.context_limit()},
          {"kv_bytes_per_entry", model.kv_bytes_per_entry()},
          {"engine", model.engine()}};
}

}  // namespace

std::string Table(const Summary& s) {
  std::string text = absl::StrFormat(
      "over %.1f s: %d requests (%.3f/s), %d finished, %d good, %d cancelled, %d gave up, %d cut, "
      "%d failed, %d not sent\n%.3f requests/s, %.1f tokens/s, goodput %.3f requests/s\n",
      s.window_seconds, s.requests, s.offered_per_second, s.finished, s.good, s.cancelled,
      s.gave_up, s.cut, s.failed, s.not_sent, s.finished_per_second, s.tokens_per_second,
      s.good_per_second);
  absl::StrAppend(
      &text, "| milliseconds       |       p50 |       p90 |       p99 |       max |   count |\n",
      "|--------------------|-----------|-----------|-----------|-----------|---------|\n",
      Times("first token", s.ttft_ms), Times("inter-token", s.inter_token_ms),
      Times("end to end", s.end_to_end_ms), Times("this client's lag", s.send_lag_ms));
  for (const PhaseSummary& p : s.phases) {
    if (s.phases.size() == 1) break;
    absl::StrAppendFormat(
        &text, "at %.3f/s for %.0f s: %.1f tokens/s, %.3f requests/s, %.3f good\n", p.phase.rate,
        p.phase.seconds, p.tokens_per_second, p.finished_per_second, p.good_per_second);
  }
  absl::StrAppend(&text, Counts("status", s.codes), Counts("ended by", s.reasons),
                  Counts("chunk size at the start", s.chunk_sizes),
                  Counts("chunk size at the end", s.chunk_sizes_last));
  absl::StrAppendFormat(
      &text,
      "%d budget changes told; the server coarsened %d and refined %d, and preempted %d\n"
      "%d of %d prompt tokens cached, %d of %d pages used at most, %d ran and %d waited at most\n",
      s.budget_changes, s.budgets_coarsened, s.budgets_refined, s.preemptions, s.cached_tokens,
      s.prompt_tokens, s.kv_pages_peak, s.kv_pages_total, s.running_peak, s.waiting_peak);
  return text;
}

std::string Figures(const std::string& name, const Summary& s) {
  std::string lines;
  const auto line = [&](const char* key, double value, const char* unit) {
    absl::StrAppendFormat(&lines, "%s.%s=%.6g %s\n", name, key, value, unit);
  };
  line("offered", s.offered_per_second, "requests/s");
  line("finished", s.finished_per_second, "requests/s");
  line("goodput", s.good_per_second, "requests/s");
  line("tokens", s.tokens_per_second, "tokens/s");
  line("failed", static_cast<double>(s.failed + s.not_sent), "requests");
  line("ttft_p50", s.ttft_ms.p50, "ms");
  line("ttft_p99", s.ttft_ms.p99, "ms");
  line("inter_token_p50", s.inter_token_ms.p50, "ms");
  line("inter_token_p99", s.inter_token_ms.p99, "ms");
  line("end_to_end_p50", s.end_to_end_ms.p50, "ms");
  line("end_to_end_p99", s.end_to_end_ms.p99, "ms");
  line("budget_changes", static_cast<double>(s.budget_changes), "changes");
  line("preemptions", static_cast<double>(s.preemptions), "preemptions");
  line("kv_pages_peak", static_cast<double>(s.kv_pages_peak), "pages");
  return lines;
}

absl::Status WriteJson(const LoadOptions& options, const RunResult& run, const Summary& summary) {
  json document = {{"model", ModelJson(run.model)},
                   {"seed", options.workload.seed},
                   {"objective",
                    {{"ttft_ms", options.objective.ttft_ms},
                     {"inter_token_p99_ms", options.objective.inter_token_p99_ms}}},
                   {"summary", ToJson(summary)}};
  json samples = json::array();
  for (const Sample& sample : run.samples) samples.push_back(ToJson(sample));
  document["samples"] = std::move(samples);
  if (options.record_calls) {
    json calls = json::array();
    for (const CallRecord& call : run.calls) calls.push_back(ToJson(call));
    document["calls"] = std::move(calls);
  }
  std::ofstream out(options.json, std::ios::trunc);
  // A server's message may be no UTF-8.
  out << document.dump(-1, ' ', false, json::error_handler_t::replace) << "\n";
  if (out.flush()) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("--json=", options.json, " cannot be written: is its directory there?"));
}

}  // namespace catserve

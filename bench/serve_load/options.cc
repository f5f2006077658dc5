#include "bench/serve_load/options.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

ABSL_FLAG(std::string, server, "127.0.0.1:8500", "the server's address, on loopback only");
ABSL_FLAG(double, rate, 0, "open loop: requests per second, arriving as a Poisson process");
ABSL_FLAG(std::string, phases, "", "open loop with changing rates: \"2:30,20:10\" (rate:seconds)");
ABSL_FLAG(int32_t, concurrency, 0, "closed loop instead: so many requests in flight");
ABSL_FLAG(int32_t, requests, 0, "stop sending after so many; 0: when the time is over");
ABSL_FLAG(double, duration_seconds, 10, "how long requests are sent, at most 3600");
ABSL_FLAG(double, warmup_seconds, 0, "the first part of it, left out of every figure");
ABSL_FLAG(double, drain_seconds, 60, "then wait so long for the last; what is left is cancelled");
ABSL_FLAG(std::string, lengths, "256:64", "prompt:generated tokens, a list to draw from");
ABSL_FLAG(std::string, lengths_file, "", "the same as a file of \"prompt generated\" lines");
ABSL_FLAG(std::string, budgets, "none", "as 8:0.5,auto8-32:0.3,32:0.2 with shares; or none");
ABSL_FLAG(double, cancel_share, 0, "share of requests that the client cancels under way");
ABSL_FLAG(double, patience_ms, 0, "clients give up when no token has come by then; 0: never");
ABSL_FLAG(double, slow_share, 0, "share of clients that read slowly, with a small window");
ABSL_FLAG(double, slow_pause_ms, 200, "how long a slow client waits before each read");
ABSL_FLAG(double, temperature, 0, "0 is greedy; else sampled with a seed for each request");
ABSL_FLAG(int32_t, shared_prefix, 0, "tokens that all prompts begin with");
ABSL_FLAG(bool, bypass_prefix_cache, false, "ask for prompts to be read anew");
ABSL_FLAG(uint64_t, seed, 1, "of everything that is drawn");
ABSL_FLAG(double, objective_ttft_ms, 0, "goodput: first token within this; 0: any");
ABSL_FLAG(double, objective_inter_token_p99_ms, 0, "goodput: the request's own p99 gap; 0: any");
ABSL_FLAG(int32_t, in_flight_max, 1024, "arrivals beyond so many unanswered requests are not sent");
ABSL_FLAG(int32_t, poll_ms, 250, "between two looks at the server's load");
ABSL_FLAG(std::string, name, "serve_load", "stands in front of each name=value");
ABSL_FLAG(std::string, json, "", "write the results to this file");
ABSL_FLAG(bool, record_calls, false, "the JSON lists every call with the time of each token");

namespace catserve {
namespace {

constexpr std::streamsize kLengthsFileBytesMax = 4 << 20;

// `low` and `high` are allowed themselves. A NaN is out of every range.
absl::Status InRange(absl::string_view flag, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", value, " is out of range: ", low, " to ", high));
}

absl::Status CheckRanges(const LoadOptions& o) {
  const absl::Status checks[] = {
      InRange("concurrency", o.concurrency, 0, kInFlightMax),
      InRange("requests", o.requests_max, 0, kRequestsMax),
      InRange("duration_seconds", o.duration_seconds, 0.01, kDurationMaxSeconds),
      InRange("warmup_seconds", o.warmup_seconds, 0, o.duration_seconds),
      InRange("drain_seconds", o.drain_seconds, 0, kDurationMaxSeconds),
      InRange("patience_ms", o.patience_ms, 0, 3'600'000),
      InRange("slow_pause_ms", o.slow_pause_ms, 0, 60'000),
      InRange("temperature", o.temperature, 0, 100),
      InRange("in_flight_max", o.in_flight_max, 1, kInFlightMax),
      InRange("poll_ms", o.poll_ms, 20, 60'000),
      InRange("cancel_share", o.workload.cancel_share, 0, 1),
      InRange("slow_share", o.workload.slow_share, 0, 1),
      InRange("shared_prefix", o.workload.shared_prefix, 0, kTokensMax),
      InRange("objective_ttft_ms", o.objective.ttft_ms, 0, 1e9),
      InRange("objective_inter_token_p99_ms", o.objective.inter_token_p99_ms, 0, 1e9),
      CheckLoopback(o.server),
  };
  for (const absl::Status& check : checks) {
    if (!check.ok()) return check;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Lengths>> LengthsFromFlags() {
  const std::string path = absl::GetFlag(FLAGS_lengths_file);
  if (path.empty()) return ReadLengths(absl::GetFlag(FLAGS_lengths));
  std::ifstream file(path, std::ios::binary);
  std::string text(kLengthsFileBytesMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.gcount() == 0 || file.gcount() > kLengthsFileBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("--lengths_file=", path, ": no file of 1 to ",
                                                   kLengthsFileBytesMax, " bytes"));
  }
  text.resize(file.gcount());
  return ReadLengthsFile(text);
}

// Exactly one of --rate, --phases and --concurrency says how requests come.
absl::Status ReadPace(LoadOptions& options) {
  const double rate = absl::GetFlag(FLAGS_rate);
  const std::string phases = absl::GetFlag(FLAGS_phases);
  if ((rate != 0 ? 1 : 0) + (phases.empty() ? 0 : 1) + (options.concurrency != 0 ? 1 : 0) != 1) {
    return absl::InvalidArgumentError(
        "say how requests come: one of --rate=R, --phases=R:SECONDS,... and --concurrency=N");
  }
  if (options.concurrency != 0) return absl::OkStatus();
  if (rate != 0) {
    if (auto status = InRange("rate", rate, 1e-6, kRateMax); !status.ok()) return status;
    options.phases = {{rate, options.duration_seconds}};
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<Phase>> list = ReadPhases(phases);
  if (!list.ok()) return list.status();
  options.phases = *std::move(list);
  options.duration_seconds = 0;
  for (const Phase& phase : options.phases) options.duration_seconds += phase.seconds;
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckLoopback(const std::string& address) {
  const size_t colon = address.rfind(':');
  const std::string host = address.substr(0, colon);
  int32_t port = 0;
  const bool has_port = colon != std::string::npos &&
                        absl::SimpleAtoi(address.substr(colon + 1), &port) && port >= 1 &&
                        port <= 65535;
  if (has_port && (host == "127.0.0.1" || host == "localhost" || host == "[::1]")) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--server=", address,
                   " is refused: load is sent to this machine alone; write 127.0.0.1:PORT"));
}

absl::StatusOr<LoadOptions> ReadLoadFlags() {
  LoadOptions o;
  o.server = absl::GetFlag(FLAGS_server);
  o.concurrency = absl::GetFlag(FLAGS_concurrency);
  o.requests_max = absl::GetFlag(FLAGS_requests);
  o.duration_seconds = absl::GetFlag(FLAGS_duration_seconds);
  o.warmup_seconds = absl::GetFlag(FLAGS_warmup_seconds);
  o.drain_seconds = absl::GetFlag(FLAGS_drain_seconds);
  o.slow_pause_ms = absl::GetFlag(FLAGS_slow_pause_ms);
  o.temperature = absl::GetFlag(FLAGS_temperature);
  o.bypass_prefix_cache = absl::GetFlag(FLAGS_bypass_prefix_cache);
  o.in_flight_max = absl::GetFlag(FLAGS_in_flight_max);
  o.poll_ms = absl::GetFlag(FLAGS_poll_ms);
  o.patience_ms = absl::GetFlag(FLAGS_patience_ms);
  o.workload.cancel_share = absl::GetFlag(FLAGS_cancel_share);
  o.workload.slow_share = absl::GetFlag(FLAGS_slow_share);
  o.workload.shared_prefix = absl::GetFlag(FLAGS_shared_prefix);
  o.workload.seed = absl::GetFlag(FLAGS_seed);
  o.objective = {absl::GetFlag(FLAGS_objective_ttft_ms),
                 absl::GetFlag(FLAGS_objective_inter_token_p99_ms)};
  o.name = absl::GetFlag(FLAGS_name);
  o.json = absl::GetFlag(FLAGS_json);
  o.record_calls = absl::GetFlag(FLAGS_record_calls);
  if (auto status = ReadPace(o); !status.ok()) return status;
  if (auto status = CheckRanges(o); !status.ok()) return status;
  if (o.requests_max == 0) o.requests_max = kRequestsMax;
  absl::StatusOr<std::vector<Lengths>> lengths = LengthsFromFlags();
  if (!lengths.ok()) return lengths.status();
  o.workload.lengths = *std::move(lengths);
  absl::StatusOr<std::vector<BudgetChoice>> budgets = ReadBudgets(absl::GetFlag(FLAGS_budgets));
  if (!budgets.ok()) return budgets.status();
  o.workload.budgets = *std::move(budgets);
  return o;
}

absl::Status FitToModel(const v1::GetModelResponse& model, LoadOptions& options) {
  options.workload.vocabulary = model.vocabulary_size();
  for (const Lengths& lengths : options.workload.lengths) {
    if (lengths.prompt + lengths.generated > model.context_limit()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "lengths ", lengths.prompt, ":", lengths.generated, " do not fit the context of ",
          model.name(), ": ", model.context_limit(), " tokens"));
    }
    if (lengths.prompt < options.workload.shared_prefix) {
      return absl::InvalidArgumentError(
          absl::StrCat("--shared_prefix=", options.workload.shared_prefix,
                       " is longer than a prompt of ", lengths.prompt, " tokens"));
    }
  }
  const auto offered = [&model](int32_t chunk_size) {
    return std::any_of(model.chunk_sizes().begin(), model.chunk_sizes().end(),
                       [&](const auto& info) { return info.chunk_size() == chunk_size; });
  };
  for (const BudgetChoice& budget : options.workload.budgets) {
    if (budget.kind == BudgetChoice::Kind::kNone) continue;
    for (const int32_t chunk_size : {budget.chunk_size_min, budget.chunk_size_max}) {
      if (chunk_size != 0 && !offered(chunk_size)) {
        return absl::InvalidArgumentError(
            absl::StrCat("chunk size ", chunk_size, " is not offered by ", model.name(),
                         model.chunk_sizes_size() == 0 ? ": it is dense, use --budgets=none" : ""));
      }
    }
    if (model.chunk_sizes_size() == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(model.name(), " is dense: use --budgets=none"));
    }
  }
  return absl::OkStatus();
}

}  // namespace catserve

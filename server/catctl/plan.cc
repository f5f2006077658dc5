// catctl plan: measures an idle replica at each chunk size and says how many of them a load needs.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/catctl/commands.h"
#include "server/catctl/dial_table.h"
#include "server/catctl/flags.h"
#include "server/catctl/sizing.h"

namespace catserve {
namespace {

constexpr int32_t kStreamsMax = 256;  // a thread each
constexpr double kMeasureSecondsMax = 3600;

// What all streams of a measurement share.
struct Measurement {
  const Client& client;
  v1::GenerateRequest request;  // without a prompt
  OfferedLoad load;
  int32_t vocabulary = 0;
  absl::Time stop;

  std::atomic<int64_t> requests{0};
  std::atomic<int64_t> nanoseconds{0};  // of these, together
  std::atomic<bool> failed{false};
  grpc::Status failure;  // of the one that set `failed`
};

// A prompt that shares nothing with another: what the prefix cache would save depends on the
// callers, and is not counted.
void DrawPrompt(std::mt19937& random, const Measurement& measurement, v1::Prompt& prompt) {
  std::uniform_int_distribution<int32_t> id(0, measurement.vocabulary - 1);
  auto& ids = *prompt.mutable_token_ids()->mutable_ids();
  ids.Clear();
  for (int32_t i = 0; i < measurement.load.prompt_tokens; ++i) ids.Add(id(random));
}

// One request after the other until the time is over; the last ones are finished and counted, since
// all streams end together within one request. One that fails, as all do after Ctrl-C, ends it.
void RunStream(Measurement& measurement, uint32_t seed) {
  std::mt19937 random(seed);
  v1::GenerateRequest request = measurement.request;
  do {
    DrawPrompt(random, measurement, *request.mutable_prompt());
    const absl::Time start = absl::Now();
    Call call(measurement.client);
    const auto reader = measurement.client.generation->Generate(&call.context, request);
    v1::GenerateResponse event;
    while (reader->Read(&event)) continue;
    const grpc::Status status = reader->Finish();
    if (!status.ok()) {
      if (!measurement.failed.exchange(true)) measurement.failure = status;
      return;
    }
    ++measurement.requests;
    measurement.nanoseconds += absl::ToInt64Nanoseconds(absl::Now() - start);
  } while (absl::Now() < measurement.stop && !measurement.failed);
}

// Runs `streams` streams for about `seconds`.
MeasuredReplica Measure(Measurement& measurement, int32_t streams, double seconds) {
  const absl::Time start = absl::Now();
  measurement.stop = start + absl::Seconds(seconds);
  std::vector<std::thread> threads;
  threads.reserve(streams);
  for (int32_t i = 0; i < streams; ++i) {
    threads.emplace_back([&measurement, i] { RunStream(measurement, static_cast<uint32_t>(i)); });
  }
  for (std::thread& thread : threads) thread.join();
  const double elapsed = absl::ToDoubleSeconds(absl::Now() - start);
  const auto requests = static_cast<double>(measurement.requests.load());
  const double busy = static_cast<double>(measurement.nanoseconds.load()) * 1e-9;
  return {streams, requests / elapsed, busy / std::max(requests, 1.0)};
}

v1::GenerateRequest RequestAt(int32_t chunk_size, const OfferedLoad& load) {
  v1::GenerateRequest request;
  if (chunk_size > 0) request.mutable_budget()->set_chunk_size(chunk_size);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(load.generated_tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  request.set_bypass_prefix_cache(true);
  return request;
}

// The load that the flags name, or a line that says which one is wrong.
absl::StatusOr<OfferedLoad> ReadLoad() {
  const OfferedLoad load{absl::GetFlag(FLAGS_requests_per_second),
                         absl::GetFlag(FLAGS_prompt_tokens), absl::GetFlag(FLAGS_generated_tokens),
                         absl::GetFlag(FLAGS_utilisation)};
  if (!(load.requests_per_second > 0 && load.requests_per_second <= 1e6)) {
    return absl::InvalidArgumentError(
        "plan needs --requests_per_second=RATE, above 0, at most 1000000");
  }
  if (load.prompt_tokens < 1 || load.generated_tokens < 1) {
    return absl::InvalidArgumentError("--prompt_tokens and --generated_tokens: at least 1 each");
  }
  if (!(load.utilisation >= 0.01 && load.utilisation <= 1)) {
    return absl::InvalidArgumentError("--utilisation: 0.01 to 1");
  }
  const double seconds = absl::GetFlag(FLAGS_measure_seconds);
  if (!(seconds > 0 && seconds <= kMeasureSecondsMax)) {
    return absl::InvalidArgumentError("--measure_seconds: above 0, at most 3600");
  }
  return load;
}

// What the server says of itself.
struct Replica {
  v1::GetModelResponse model;
  v1::GetLoadResponse load;
  ModelGeometry geometry() const {
    ModelGeometry geometry;
    geometry.kind = model.kind() == "cat"         ? ModelKind::kCat
                    : model.kind() == "cat_fixed" ? ModelKind::kCatFixed
                                                  : ModelKind::kDense;
    geometry.bytes_per_entry = model.kv_bytes_per_entry();
    return geometry;
  }
};

grpc::Status Ask(const Client& client, Replica& replica) {
  {
    Call call(client);
    grpc::Status status = client.models->GetModel(&call.context, {}, &replica.model);
    if (!status.ok()) return status;
  }
  Call call(client);
  return client.models->GetLoad(&call.context, {}, &replica.load);
}

void PrintRow(const v1::ChunkSizeInfo& info, const MeasuredReplica& measured,
              const Sizing& sizing) {
  const std::string quality =
      info.has_heldout_bits_per_byte() ? QualityText(info.heldout_bits_per_byte()) : "-";
  const std::string size = info.chunk_size() > 0 ? absl::StrCat(info.chunk_size()) : "dense";
  constexpr double kMiB = 1 << 20;
  std::printf("%10s  %9s  %10.2f  %9.2f  %8s  %10.1f  %13.2f  %13.1f\n", size.c_str(),
              quality.c_str(), measured.requests_per_second, measured.request_seconds,
              absl::StrCat(sizing.replicas).c_str(), sizing.concurrent,
              static_cast<double>(sizing.sequence_bytes) / kMiB,
              static_cast<double>(sizing.memory_bytes) / kMiB);
  std::fflush(stdout);  // the next row takes a while
}

void PrintHead(const Replica& replica, const OfferedLoad& load, int32_t streams) {
  std::printf("%s on %s, %d streams at a time, prompts of %d tokens, %d generated\n",
              replica.model.name().c_str(), replica.model.engine().c_str(), streams,
              load.prompt_tokens, load.generated_tokens);
  std::printf("for %g requests/s, replicas at most %.0f%% busy:\n\n", load.requests_per_second,
              100 * load.utilisation);
  std::printf("%10s  %9s  %10s  %9s  %8s  %10s  %13s  %13s\n", "", "", "requests/s", "seconds a",
              "", "running in", "KV MiB of one", "KV MiB of a");
  std::printf("%10s  %9s  %10s  %9s  %8s  %10s  %13s  %13s\n", "chunk size", "bits/byte", "of one",
              "request", "replicas", "each", "sequence", "replica");
}

}  // namespace

int PlanCommand(const Client& client, const std::vector<std::string>&) {
  const absl::StatusOr<OfferedLoad> load = ReadLoad();
  if (!load.ok()) return FailUsage(load.status().message());
  Replica replica;
  if (const grpc::Status status = Ask(client, replica); !status.ok()) return Fail(status, client);
  if (replica.load.running_requests() + replica.load.waiting_requests() > 0) {
    std::fputs("catctl: the server is busy with others: what follows is too low\n", stderr);
  }
  const int64_t tokens = int64_t{load->prompt_tokens} + load->generated_tokens;
  if (tokens > replica.model.context_limit()) {
    return FailUsage(absl::StrCat("--prompt_tokens and --generated_tokens are ", tokens,
                                  " together; the model's context is ",
                                  replica.model.context_limit()));
  }
  const int32_t streams = std::min(replica.model.slots(), kStreamsMax);
  PrintHead(replica, *load, streams);
  v1::ChunkSizeInfo dense;
  std::vector<v1::ChunkSizeInfo> sizes(replica.model.chunk_sizes().begin(),
                                       replica.model.chunk_sizes().end());
  if (sizes.empty()) sizes.push_back(dense);
  for (const v1::ChunkSizeInfo& info : sizes) {
    Measurement measurement{client, RequestAt(info.chunk_size(), *load), *load};
    measurement.vocabulary = replica.model.vocabulary_size();
    const MeasuredReplica measured =
        Measure(measurement, streams, absl::GetFlag(FLAGS_measure_seconds));
    if (measurement.failed) return Fail(measurement.failure, client, true);
    if (Interrupted()) return kExitInterrupted;
    PrintRow(info, measured, SizeFor(*load, measured, info.chunk_size(), replica.geometry()));
  }
  std::printf(
      "\nStart each replica with --slots=%d and the last column, in bytes, as --kv_memory_bytes; "
      "one\n"
      "replica more lets one be missing.\n",
      streams);
  return kExitOk;
}

}  // namespace catserve

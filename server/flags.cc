#include "server/flags.h"

#include "absl/flags/flag.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/command_line.h"
#include "server/config/address.h"

ABSL_FLAG(std::string, model, "", "model directory: config.json, weights, tokenizer; required");
ABSL_FLAG(std::string, listen_address, "127.0.0.1:8500",
          "where gRPC listens, host:port; port 0 lets the system choose");
ABSL_FLAG(std::string, metrics_address, "127.0.0.1:9500",
          "where GET /metrics answers, host:port; empty: nowhere");
ABSL_FLAG(
    std::string, port_file, "",
    "write the chosen port to this file once listening, and the metrics page's to FILE.metrics");
ABSL_FLAG(std::string, backend, "cpu",
          "cpu (the fastest form), cpu-avx512-bf16, cpu-avx512-vnni, cpu-avx512, cpu-avx2, "
          "cpu-reference or cuda");
ABSL_FLAG(int32_t, threads, 0, "CPU worker threads, 0 to 1024; 0: one for each core");
ABSL_FLAG(std::string, weight_dtype, "stored",
          "precision of weights: stored, F32, BF16, F16, I8, I4 or F8_E4M3");
ABSL_FLAG(std::string, kv_dtype, "weights",
          "precision of KV memory: weights (F32 if the weights are, else BF16), F32, BF16, I8 or, "
          "with --backend=cuda, F8_E4M3");
ABSL_FLAG(int32_t, slots, 32, "sequences that run at once, 1 to 4096");
ABSL_FLAG(int64_t, kv_memory_bytes, 0,
          "KV memory, taken at start; 0: a quarter of the available memory, or of a GPU what "
          "--gpu_memory_fraction leaves, at most twice what the slots can use");
ABSL_FLAG(double, gpu_memory_fraction, 0.9,
          "how much of a GPU's memory may be taken where --kv_memory_bytes is 0, 0.05 to 1");
ABSL_FLAG(int32_t, queue_requests_max, 256, "requests that may wait, 1 to 1000000");
ABSL_FLAG(int32_t, request_bytes_max, 4 << 20, "largest request message, 1024 to 268435456");
ABSL_FLAG(int32_t, step_tokens_max, 0,
          "work of one step in decoder rows, 0 to 65536: more for throughput, fewer for even "
          "streams; 0: chosen for the slots");
ABSL_FLAG(std::string, default_budget, "auto",
          "budget of a request that names none: auto, auto,quality_loss_max=0.05,quality_task=NAME "
          "or a chunk size the model offers");
ABSL_FLAG(double, drain_seconds, 30, "how long running requests may go on after SIGTERM");
ABSL_FLAG(double, keepalive_seconds, 30, "ping silent clients this often; 1 to 7200");
ABSL_FLAG(
    std::string, config, "",
    "YAML file for the rest: TLS, callers' tokens, limits of connections (docs/operations.md)");

namespace catserve {
namespace {

constexpr char kFolder[] = "server/flags.cc";
constexpr int64_t kKvMemoryBytesMax = 1'000'000'000'000'000;

template <typename T>
absl::Status CheckRange(absl::string_view flag, T value, T low, T high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", value, " is out of range: ", low, " to ", high));
}

absl::Status CheckChoice(absl::string_view flag, absl::string_view value,
                         std::initializer_list<absl::string_view> allowed) {
  std::string names;
  for (const absl::string_view name : allowed) {
    if (name == value) return absl::OkStatus();
    absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, "=", value, " is not known: use one of ", names));
}

absl::Status CheckAddress(absl::string_view flag, absl::string_view address) {
  absl::Status status = ReadAddress(address).status();
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat("--", flag, "=", address, " ", status.message()));
}

absl::Status CheckRanges(const ServerOptions& options) {
  const absl::Status checks[] = {
      CheckAddress("listen_address", options.listen_address),
      options.metrics_address.empty() ? absl::OkStatus()
                                      : CheckAddress("metrics_address", options.metrics_address),
      CheckChoice("backend", options.backend,
                  {"cpu", "cpu-avx512-bf16", "cpu-avx512-vnni", "cpu-avx512", "cpu-avx2",
                   "cpu-reference", "cuda"}),
      CheckChoice("weight_dtype", options.weight_dtype,
                  {"stored", "F32", "BF16", "F16", "I8", "I4", "F8_E4M3"}),
      CheckChoice("kv_dtype", options.kv_dtype, {"weights", "F32", "BF16", "I8", "F8_E4M3"}),
      CheckRange("threads", options.threads, 0, 1024),
      CheckRange("slots", options.slots, 1, 4096),
      CheckRange("kv_memory_bytes", options.kv_memory_bytes, int64_t{0}, kKvMemoryBytesMax),
      CheckRange("gpu_memory_fraction", options.gpu_memory_fraction, 0.05, 1.0),
      CheckRange("queue_requests_max", options.queue_requests_max, 1, 1'000'000),
      CheckRange("request_bytes_max", options.request_bytes_max, 1024, 256 << 20),
      CheckRange("step_tokens_max", options.step_tokens_max, 0, 65536),
      CheckRange("drain_seconds", absl::ToDoubleSeconds(options.drain), 0.0, 86400.0),
      CheckRange("keepalive_seconds", absl::ToDoubleSeconds(options.keepalive), 1.0, 7200.0),
  };
  for (const absl::Status& check : checks) {
    if (!check.ok()) return check;
  }
  if (options.kv_dtype == "F8_E4M3" && options.backend != "cuda") {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv_dtype=F8_E4M3 needs --backend=cuda: with --backend=", options.backend,
                     " use --kv_dtype=I8, which takes as little memory"));
  }
  int32_t chunk_size = 0;
  if (options.default_budget != "auto" && !absl::StartsWith(options.default_budget, "auto,") &&
      (!absl::SimpleAtoi(options.default_budget, &chunk_size) || chunk_size < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("--default_budget=", options.default_budget,
                                                   " is no budget: write auto or a chunk size"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ServerOptions> ReadServerFlags(const std::vector<std::string>& args) {
  ServerOptions options;
  if (args.size() == 1 && (args[0] == "--help" || args[0] == "-h")) {
    options.help = true;
    return options;
  }
  absl::StatusOr<std::vector<std::string>> others = ParseCommandLine(args, kFolder);
  if (!others.ok()) return others.status();
  if (!others->empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", others->front(), "\" is no flag: write --name=value; see --help"));
  }
  options.model_dir = absl::GetFlag(FLAGS_model);
  options.listen_address = absl::GetFlag(FLAGS_listen_address);
  options.metrics_address = absl::GetFlag(FLAGS_metrics_address);
  options.port_file = absl::GetFlag(FLAGS_port_file);
  options.backend = absl::GetFlag(FLAGS_backend);
  options.threads = absl::GetFlag(FLAGS_threads);
  options.weight_dtype = absl::GetFlag(FLAGS_weight_dtype);
  options.kv_dtype = absl::GetFlag(FLAGS_kv_dtype);
  options.slots = absl::GetFlag(FLAGS_slots);
  options.kv_memory_bytes = absl::GetFlag(FLAGS_kv_memory_bytes);
  options.gpu_memory_fraction = absl::GetFlag(FLAGS_gpu_memory_fraction);
  options.queue_requests_max = absl::GetFlag(FLAGS_queue_requests_max);
  options.request_bytes_max = absl::GetFlag(FLAGS_request_bytes_max);
  options.step_tokens_max = absl::GetFlag(FLAGS_step_tokens_max);
  options.default_budget = absl::GetFlag(FLAGS_default_budget);
  options.drain = absl::Seconds(absl::GetFlag(FLAGS_drain_seconds));
  options.keepalive = absl::Seconds(absl::GetFlag(FLAGS_keepalive_seconds));
  if (options.model_dir.empty()) {
    return absl::InvalidArgumentError("--model is missing: write --model=DIRECTORY");
  }
  if (const absl::Status ranges = CheckRanges(options); !ranges.ok()) return ranges;
  if (const std::string file = absl::GetFlag(FLAGS_config); !file.empty()) {
    absl::StatusOr<ServerConfig> config = LoadServerConfig(file);
    if (!config.ok()) return config.status();
    options.config = *std::move(config);
  }
  return options;
}

std::string ServerHelp() {
  return absl::StrCat(
      "catserved serves one compressed-context language model over gRPC.\n\n"
      "  catserved --model=DIRECTORY [--flag=value ...]\n"
      "  catserved --version\n\nFlags:\n",
      DescribeFlags(kFolder),
      "\nExit code: 0 after a drain (SIGTERM, SIGINT), 1 if it cannot serve (ports, memory), 2 if "
      "the\n"
      "flags, the configuration or the model's files are wrong, 70 if the GPU stopped "
      "answering.\n");
}

}  // namespace catserve

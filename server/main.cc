// catserved: wires backend, model, engine and services together, and drains them on SIGTERM.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "engine/admission.h"
#include "engine/engine.h"
#include "engine/model/model.h"
#include "engine/model/model_executor.h"
#include "engine/text/tokenizer.h"
#include "kernels/backend_factory.h"
#include "kernels/backend_lost.h"
#include "server/command_line.h"
#include "server/engine_options.h"
#include "server/flags.h"
#include "server/grpc_server.h"
#include "server/kv_size.h"
#include "server/log.h"
#include "server/port_file.h"
#include "server/quiet.h"
#include "server/signals.h"

// Of AddressSanitizer, where it is built in: it would look for leaks at an ordinary exit.
// NOLINTNEXTLINE(bugprone-reserved-identifier): the sanitizer's own name
extern "C" void __lsan_do_leak_check() __attribute__((weak));

namespace catserve {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitBadInput = 2;  // flags, or files of the operator

// What a served model stands on, in order of construction.
struct House {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Model> model;
  std::unique_ptr<ModelExecutor> executor;
  std::unique_ptr<Engine> engine;
};

// What the signals' thread, the main thread and one that loses the backend tell each other.
struct Signals {
  std::atomic<bool> serving = false;
  absl::Notification stop;
  absl::Mutex mutex;
  GrpcServer* server ABSL_GUARDED_BY(mutex) = nullptr;  // null: not there
};

// The result outlives the signals' thread.
std::shared_ptr<Signals> ReadSignals(const ServerConfig& config) {
  auto signals = std::make_shared<Signals>();
  SignalEvents events;
  events.first = [signals](int signal) {
    LogInfo("signal", {{"number", signal}, {"then", signals->serving ? "drain" : "exit"}});
    if (!signals->serving) _exit(0);  // nothing runs yet
    signals->stop.Notify();
  };
  const bool something_to_reload =
      !config.tls.certificate_file.empty() || !config.tokens_file.empty();
  if (something_to_reload) {
    events.hangup = [signals] {
      LogInfo("signal", {{"number", SIGHUP},
                         {"then", "reload"},
                         {"what", "certificates and tokens"},
                         {"needs_a_restart", "the configuration file itself"}});
      absl::MutexLock lock(&signals->mutex);
      if (signals->server != nullptr) signals->server->Reload();
    };
  }
  WatchSignals(std::move(events));
  return signals;
}

// A device that stops answering ends the process: probes hear of it first.
void WatchBackend(const std::shared_ptr<Signals>& signals) {
  OnBackendLost([signals](const std::string& why) {
    LogError("backend_lost", {{"reason", why}});
    absl::MutexLock lock(&signals->mutex);
    if (signals->server != nullptr) signals->server->TellLost();
  });
}

void SetServer(Signals& signals, GrpcServer* server) {
  absl::MutexLock lock(&signals.mutex);
  signals.server = server;
}

// Every connection takes two descriptors, and the rest of the process some.
void RaiseDescriptorLimit(const ConnectionsConfig& connections) {
  constexpr rlim_t kOthers = 128;
  const rlim_t wanted = 2 * static_cast<rlim_t>(connections.count_max) + kOthers;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  if (setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur == wanted) return;
  LogWarning("few_descriptors", {{"connections_count_max", connections.count_max},
                                 {"needs", wanted},
                                 {"ulimit_n", limit.rlim_max},
                                 {"effect", "fewer connections at once"}});
}

ModelOptions ReadModelOptions(const ServerOptions& options) {
  ModelOptions model;
  constexpr std::pair<std::string_view, WeightType> kTypes[] = {
      {"F32", WeightType::kF32}, {"BF16", WeightType::kBF16}, {"F16", WeightType::kF16},
      {"I8", WeightType::kI8},   {"I4", WeightType::kI4},     {"F8_E4M3", WeightType::kE4M3}};
  for (const auto& [name, type] : kTypes) {
    if (options.weight_dtype == name) model.weight_type = type;
  }
  return model;
}

DType KvDType(const ServerOptions& options, const Model& model) {
  if (options.kv_dtype == "F32") return DType::kF32;
  if (options.kv_dtype == "I8") return DType::kI8;
  if (options.kv_dtype == "F8_E4M3") return DType::kE4M3;
  const bool narrow = model.weights().dtype != Name(DType::kF32);
  return options.kv_dtype == "BF16" || narrow ? DType::kBF16 : DType::kF32;
}

// The tokenizer, or why text cannot be served; other errors than its absence are fatal.
absl::Status LoadTokenizer(const ServerOptions& options, ServedModel& served) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(options.model_dir);
  if (tokenizer.ok()) {
    served.tokenizer = *std::move(tokenizer);
    served.token_bytes_max = LongestToken(*served.tokenizer);
    const int32_t model_size = served.description.geometry.vocab_size;
    if (served.tokenizer->info().vocab_size <= model_size) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        options.model_dir, ": the tokenizer has ", served.tokenizer->info().vocab_size,
        " ids, the model only ", model_size, "; use the tokenizer the model was trained with"));
  }
  if (!absl::IsNotFound(tokenizer.status())) return tokenizer.status();
  served.tokenizer_missing = absl::FailedPreconditionError(absl::StrCat(
      "the model directory has no tokenizer (tokenizer.json, or vocab.json and merges.txt): send "
      "token_ids, without stop strings"));
  LogWarning("no_tokenizer", {{"model", options.model_dir}, {"effect", "token ids only"}});
  return absl::OkStatus();
}

absl::Status LoadModel(const ServerOptions& options, House& house, ServedModel& served) {
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeBackend(options.backend, options.threads);
  if (!backend.ok()) {
    return absl::Status(backend.status().code(), absl::StrCat("--backend=", options.backend, ": ",
                                                              backend.status().message()));
  }
  house.backend = *std::move(backend);
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Load(options.model_dir, *house.backend, ReadModelOptions(options));
  if (!model.ok()) return model.status();
  house.model = *std::move(model);
  for (const std::string& warning : house.model->warnings()) {
    LogWarning("model", {{"warning", warning}});
  }
  served.description = house.model->Describe(KvDType(options, *house.model));
  served.engine_name = house.backend->Description();
  if (absl::Status status = LoadTokenizer(options, served); !status.ok()) return status;
  absl::StatusOr<ModelCard> card = LoadModelCard(options.model_dir);
  if (!card.ok()) return card.status();
  served.card = *std::move(card);
  const std::filesystem::path directory = std::filesystem::path(options.model_dir) / "";
  served.name =
      served.card.name.empty() ? directory.parent_path().filename().string() : served.card.name;
  absl::StatusOr<v1::Budget> budget = ReadDefaultBudget(options.default_budget, served);
  if (!budget.ok()) return budget.status();
  served.default_budget = *std::move(budget);
  return absl::OkStatus();
}

KvRoom RoomForKv(const ServerOptions& options, const Backend& backend) {
  const std::optional<DeviceMemory> memory = backend.Memory();
  if (!memory) return RoomOnHost(AvailableBytes());
  return RoomOnDevice(memory->free, memory->total, options.gpu_memory_fraction);
}

absl::Status StartEngine(const ServerOptions& options, House& house, ServedModel& served) {
  const ModelGeometry& geometry = served.description.geometry;
  EngineOptions engine = MakeEngineOptions(options, served);
  ExecutorOptions executor;
  executor.slots = options.slots;
  executor.choose_kv_pages = [&] {
    return KvPages(geometry, options.kv_memory_bytes, options.slots,
                   RoomForKv(options, *house.backend));
  };
  executor.kv_dtype = KvDType(options, *house.model);
  executor.step_rows_max = engine.step_rows_max;
  absl::StatusOr<std::unique_ptr<ModelExecutor>> made =
      ModelExecutor::Create(*house.model, *house.backend, executor);
  if (!made.ok()) return made.status();
  house.executor = *std::move(made);
  engine.kv_pages = house.executor->kv_pages();
  if (absl::Status status = ValidateOptions(geometry, engine); !status.ok()) return status;
  house.engine = std::make_unique<Engine>(geometry, *house.executor, engine);
  served.engine = house.engine.get();
  served.slots = options.slots;
  LogInfo("model_loaded", {{"name", served.name},
                           {"kind", served.description.kind},
                           {"parameters", served.description.parameters},
                           {"weight_dtype", served.description.weight_dtype},
                           {"kv_dtype", served.description.kv_dtype},
                           {"engine", served.engine_name},
                           {"slots", options.slots},
                           {"step_tokens_max", engine.step_tokens_max}});
  const int64_t pages = engine.kv_pages;
  LogInfo("kv_memory", {{"pages", pages},
                        {"bytes", pages * kPageEntries * geometry.bytes_per_entry},
                        {"full_context_sequences", FullContextSequences(geometry, pages)}});
  return absl::OkStatus();
}

absl::Status WritePorts(const ServerOptions& options, int port, int metrics_port) {
  if (options.port_file.empty()) return absl::OkStatus();
  if (metrics_port > 0) {  // first: who sees the other file finds this one
    absl::Status status = WritePortFile(options.port_file + ".metrics", metrics_port);
    if (!status.ok()) return status;
  }
  return WritePortFile(options.port_file, port);
}

absl::Status Run(const ServerOptions& options) {
  const std::shared_ptr<Signals> signals = ReadSignals(options.config);
  WatchBackend(signals);
  RaiseDescriptorLimit(options.config.connections);
  absl::StatusOr<std::unique_ptr<Metrics>> page = Metrics::Create(options.metrics_address);
  if (!page.ok()) return page.status();
  // Never destroyed: its library takes two seconds to stop, the end of the process none.
  static Metrics& metrics = *page->release();
  metrics.SetLogRequests(options.config.log_requests);
  House house;  // outlives the server
  absl::StatusOr<std::unique_ptr<GrpcServer>> server = GrpcServer::Start(options, metrics);
  if (!server.ok()) return server.status();
  SetServer(*signals, server->get());
  const absl::Cleanup forget = [&signals] { SetServer(*signals, nullptr); };
  LogInfo("listening", {{"address", options.listen_address},
                        {"port", (*server)->port()},
                        {"tls", options.config.tls.certificate_file.empty() ? "off" : "on"},
                        {"metrics_port", metrics.port()},
                        {"health_port", (*server)->health_port()}});
  if (absl::Status status = WritePorts(options, (*server)->port(), metrics.port()); !status.ok()) {
    return status;
  }
  auto served = std::make_unique<ServedModel>();
  const absl::Time start = absl::Now();
  if (absl::Status status = LoadModel(options, house, *served); !status.ok()) return status;
  if (absl::Status status = StartEngine(options, house, *served); !status.ok()) return status;
  (*server)->Serve(std::move(served));
  signals->serving = true;
  LogInfo("serving", {{"load_seconds", absl::ToDoubleSeconds(absl::Now() - start)}});
  signals->stop.WaitForNotification();
  (*server)->Drain(options.drain);
  LogInfo("stopped");
  return absl::OkStatus();
}

int ExitCode(const absl::Status& status) {
  if (status.ok()) return 0;
  const bool bad_input = absl::IsInvalidArgument(status) || absl::IsNotFound(status) ||
                         absl::IsUnimplemented(status);  // a type that the backend has not
  return bad_input ? kExitBadInput : kExitFailure;
}

int Main(const std::vector<std::string>& args) {
  PrepareLog();
  if (args == std::vector<std::string>{"--version"}) {
    std::printf("catserved %s\n", std::string(Version()).c_str());
    return 0;
  }
  const absl::StatusOr<ServerOptions> options = ReadServerFlags(args);
  if (!options.ok()) {
    std::fprintf(stderr, "catserved: %s\n", std::string(options.status().message()).c_str());
    return kExitBadInput;
  }
  if (options->help) {
    std::fputs(ServerHelp().c_str(), stdout);
    return 0;
  }
  SilenceLibraries();
  const absl::Status status = Run(*options);
  if (!status.ok()) LogError("cannot_serve", {{"reason", std::string(status.message())}});
  if (__lsan_do_leak_check != nullptr) __lsan_do_leak_check();
  std::quick_exit(ExitCode(status));  // without the static objects that the metrics page may read
}

}  // namespace
}  // namespace catserve

int main(int argc, char** argv) {
  return catserve::Main(std::vector<std::string>(argv + 1, argv + argc));
}

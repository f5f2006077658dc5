#include "server/metrics.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"
#include "server/debug_page.h"
#include "server/load_page.h"
#include "server/page_server.h"
#include "server/usage.h"

namespace catserve {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;

// From half a millisecond to half an hour.
const Histogram::BucketBoundaries kSeconds = {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,
                                              0.1,    0.2,   0.5,   1,     2,    5,    10,
                                              20,     60,    120,   300,   600,  1800};
constexpr const char* kMethods[] = {"Generate", "Score",    "Tokenize", "Detokenize",
                                    "Abort",    "GetModel", "GetLoad"};
constexpr FinishReason kReasons[] = {FinishReason::kStopToken, FinishReason::kLength,
                                     FinishReason::kTimeLimit, FinishReason::kCancelled,
                                     FinishReason::kDeadline,  FinishReason::kKvLimit,
                                     FinishReason::kFailed};
constexpr size_t kDebugRunningMax = 200;  // requests on /debug/requests

prometheus::Labels ByMethod(absl::string_view method) { return {{"method", std::string(method)}}; }

std::string ChunkSizeLabel(int32_t chunk_size) {
  return chunk_size == 0 ? "dense" : absl::StrCat(chunk_size);
}

}  // namespace

class Metrics::Impl {
 public:
  Impl();

  absl::Status Listen(const std::string& address);
  std::string Text() const;
  PageAnswer DebugRequests(const std::string& format) const;

  Family<Counter>& Counters(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Family<Gauge>& Gauges(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
  }
  Family<Histogram>& Seconds(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
  }

  prometheus::Registry registry;
  LoadPage load_page;
  RequestTraces traces;

  Gauge& ready = Gauges("catserve_ready", "1 while new requests are accepted.").Add({});
  Family<Gauge>& build = Gauges("catserve_build_info", "Always 1; the labels name the program.");
  Family<Gauge>& model = Gauges("catserve_model_info", "Always 1; the labels name the model.");
  Family<Counter>& requests =
      Counters("catserve_requests_total", "Calls that ended, by method and status code.");
  Family<Counter>& choice_ends =
      Counters("catserve_choices_finished_total", "Choices that ended, by reason.");
  Family<Counter>& prompt_tokens =
      Counters("catserve_prompt_tokens_total", "Prompt tokens of requests that started.");
  Family<Counter>& cached_tokens = Counters("catserve_cached_prompt_tokens_total",
                                            "Of these, tokens found in the prefix cache.");
  Family<Counter>& generated_tokens =
      Counters("catserve_generated_tokens_total", "Tokens that the model generated.");
  Histogram& first_token =
      Seconds("catserve_time_to_first_token_seconds", "From a call's arrival to its first token.")
          .Add({}, kSeconds);
  Histogram& inter_token =
      Seconds("catserve_inter_token_seconds", "Between consecutive tokens of a choice.")
          .Add({}, kSeconds);
  Family<Histogram>& queue =
      Seconds("catserve_queue_seconds", "From a request's acceptance to its first step.");
  Family<Histogram>& prefill =
      Seconds("catserve_prefill_seconds", "From a request's first step to its first result.");
  Family<Histogram>& decode =
      Seconds("catserve_decode_seconds", "From a request's first result to its end.");
  Family<Histogram>& whole =
      Seconds("catserve_request_seconds", "From a call's arrival to its end in the engine.");

  mutable absl::Mutex mutex;
  std::string model_name ABSL_GUARDED_BY(mutex);
  ModelGeometry geometry ABSL_GUARDED_BY(mutex);

  std::unique_ptr<PageServer> pages;  // stops first
};

// What can be counted is there from the start, at zero: a graph of a rate shows the first one.
Metrics::Impl::Impl() {
  for (const char* method : kMethods) requests.Add({{"method", method}, {"code", "OK"}});
  for (const FinishReason reason : kReasons) {
    choice_ends.Add({{"reason", std::string(ReasonName(reason))}});
  }
  for (const char* method : {"Generate", "Score"}) {
    for (Family<Histogram>* times : {&queue, &prefill, &decode, &whole}) {
      times->Add(ByMethod(method), kSeconds);
    }
  }
}

absl::Status Metrics::Impl::Listen(const std::string& address) {
  const auto metrics = [this](const std::string& /*format*/) {
    return PageAnswer{200, "text/plain; version=0.0.4; charset=utf-8", Text()};
  };
  const auto debug = [this](const std::string& format) { return DebugRequests(format); };
  absl::StatusOr<std::unique_ptr<PageServer>> server =
      PageServer::Start(address, {{"/metrics", metrics}, {"/debug/requests", debug}});
  if (!server.ok()) {
    return absl::UnavailableError(absl::StrCat(
        "--metrics_address=", address, " cannot be listened on (", server.status().message(),
        "): is another server running there? Use another port, port 0, or --metrics_address= for "
        "no metrics page"));
  }
  pages = *std::move(server);
  return absl::OkStatus();
}

std::string Metrics::Impl::Text() const {
  std::vector<prometheus::MetricFamily> families = registry.Collect();
  for (prometheus::MetricFamily& family : load_page.Collect()) {
    families.push_back(std::move(family));
  }
  return prometheus::TextSerializer().Serialize(families);
}

PageAnswer Metrics::Impl::DebugRequests(const std::string& format) const {
  if (!format.empty() && format != "html" && format != "json") {
    return {400, "text/plain; charset=utf-8", "format is html or json\n"};
  }
  DebugView view;
  view.now = absl::Now();
  view.running = traces.ReadRunning(kDebugRunningMax);
  view.slowest = traces.ReadSlowest(view.now);
  {
    absl::MutexLock lock(&mutex);
    view.model = model_name;
    view.geometry = geometry;
  }
  if (format == "json") return {200, "application/json", DebugJson(view)};
  return {200, "text/html; charset=utf-8", DebugHtml(view)};
}

absl::StatusOr<std::unique_ptr<Metrics>> Metrics::Create(const std::string& address) {
  auto impl = std::make_unique<Impl>();
  if (!address.empty()) {
    if (absl::Status status = impl->Listen(address); !status.ok()) return status;
  }
  return std::unique_ptr<Metrics>(new Metrics(std::move(impl)));
}

Metrics::Metrics(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Metrics::~Metrics() = default;

int Metrics::port() const { return impl_->pages == nullptr ? 0 : impl_->pages->port(); }
std::string Metrics::Text() const { return impl_->Text(); }
RequestTraces& Metrics::traces() { return impl_->traces; }

void Metrics::WatchLoad(std::function<EngineLoad()> load) {
  impl_->load_page.Watch(std::move(load));
}

void Metrics::SetModel(const ServedModel& model) {
  const ModelDescription& description = model.description;
  const ModelGeometry& geometry = description.geometry;
  impl_->build.Add({{"version", CATSERVE_VERSION}, {"engine", model.engine_name}}).Set(1);
  impl_->model
      .Add({{"name", model.name},
            {"kind", description.kind},
            {"parameters", absl::StrCat(description.parameters)},
            {"weight_dtype", description.weight_dtype},
            {"kv_dtype", description.kv_dtype},
            {"context_limit", absl::StrCat(geometry.block_size)}})
      .Set(1);
  if (!geometry.compresses()) CountersOf(0);
  for (const int32_t chunk_size : geometry.chunk_sizes) CountersOf(chunk_size);
  impl_->load_page.SetEntryBytes({geometry.bytes_per_entry, DenseTwinBytesPerEntry(model)});
  absl::MutexLock lock(&impl_->mutex);
  impl_->model_name = model.name;
  impl_->geometry = geometry;
}

void Metrics::SetReady(bool ready) { impl_->ready.Set(ready ? 1 : 0); }

void Metrics::CountRequest(absl::string_view method, grpc::StatusCode code) {
  impl_->requests.Add({{"method", std::string(method)}, {"code", CodeName(code)}}).Increment();
}

void Metrics::CountChoiceEnd(FinishReason reason) {
  impl_->choice_ends.Add({{"reason", std::string(ReasonName(reason))}}).Increment();
}

void Metrics::ObserveTimeToFirstToken(absl::Duration elapsed) {
  impl_->first_token.Observe(absl::ToDoubleSeconds(elapsed));
}

void Metrics::ObserveInterToken(absl::Duration elapsed) {
  impl_->inter_token.Observe(absl::ToDoubleSeconds(elapsed));
}

void Metrics::ObserveTimes(absl::string_view method, const RequestTimes& times) {
  const prometheus::Labels labels = ByMethod(method);
  const auto observe = [&labels](Family<Histogram>& family, absl::Duration time) {
    family.Add(labels, kSeconds).Observe(absl::ToDoubleSeconds(time));
  };
  observe(impl_->queue, times.queued);
  if (times.prefilling) observe(impl_->prefill, *times.prefilling);
  if (times.decoding) observe(impl_->decode, *times.decoding);
  observe(impl_->whole, times.whole);
}

TokenCounters Metrics::CountersOf(int32_t chunk_size) {
  const prometheus::Labels labels = {{"chunk_size", ChunkSizeLabel(chunk_size)}};
  return {.prompt = &impl_->prompt_tokens.Add(labels),
          .cached = &impl_->cached_tokens.Add(labels),
          .generated = &impl_->generated_tokens.Add(labels)};
}

std::string CodeName(grpc::StatusCode code) {
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));  // the numbers agree
}

absl::string_view ReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStopToken: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kTimeLimit: return "time_limit";
    case FinishReason::kCancelled: return "aborted";
    case FinishReason::kDeadline: return "deadline";
    case FinishReason::kKvLimit: return "kv_limit";
    case FinishReason::kFailed: break;
  }
  return "failed";
}

}  // namespace catserve

#include "server/metrics.h"

#include <array>
#include <exception>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "prometheus/collectable.h"
#include "prometheus/counter.h"
#include "prometheus/exposer.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace catserve {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

const prometheus::Histogram::BucketBoundaries kSeconds = {
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60};

// Reads the engine's load when the page is scraped, so that gauges are never stale.
class LoadPage : public prometheus::Collectable {
 public:
  void Watch(std::function<EngineLoad()> load) {
    absl::MutexLock lock(&mutex_);
    load_ = std::move(load);
  }

  std::vector<MetricFamily> Collect() const override {
    absl::MutexLock lock(&mutex_);
    if (!load_) return {};
    const EngineLoad load = load_();
    return {
        Gauge("catserve_running_requests", "Requests with a sequence in a slot.", load.running),
        Gauge("catserve_waiting_requests", "Requests in the queue.", load.waiting),
        Gauge("catserve_paused_requests", "Running requests whose readers are behind.",
              load.paused),
        Gauge("catserve_kv_pages_used", "Pages of KV memory that sequences hold.",
              load.kv_pages_used),
        Gauge("catserve_kv_pages_cached", "Pages that the prefix cache alone holds.",
              load.kv_pages_cached),
        Gauge("catserve_kv_pages_capacity", "Pages of KV memory.", load.kv_pages_total),
        Count("catserve_steps_total", "Steps of the engine.", load.steps),
        Count("catserve_decoder_rows_total", "Rows that entered the decoder.", load.rows),
        Count("catserve_chunks_compressed_total", "Chunks compressed.", load.chunks_compressed),
        Count("catserve_prefix_cache_query_tokens_total", "Prompt tokens looked up in the cache.",
              load.prefix_query_tokens),
        Count("catserve_prefix_cache_hit_tokens_total", "Of these, tokens found.",
              load.prefix_hit_tokens),
        BudgetChanges(load),
        Count("catserve_preemptions_total", "Requests that lost their memory and were redone.",
              load.preemptions),
    };
  }

 private:
  static MetricFamily Gauge(const char* name, const char* help, int64_t value) {
    ClientMetric metric;
    metric.gauge.value = static_cast<double>(value);
    return {name, help, MetricType::Gauge, {metric}};
  }
  static MetricFamily Count(const char* name, const char* help, int64_t value) {
    ClientMetric metric;
    metric.counter.value = static_cast<double>(value);
    return {name, help, MetricType::Counter, {metric}};
  }
  static MetricFamily BudgetChanges(const EngineLoad& load) {
    MetricFamily family =
        Count("catserve_budget_changes_total", "Requests whose chunk size the server changed.",
              load.budgets_coarsened);
    family.metric.push_back(family.metric.front());
    family.metric.back().counter.value = static_cast<double>(load.budgets_refined);
    family.metric.front().label = {{"direction", "coarser"}};
    family.metric.back().label = {{"direction", "finer"}};
    return family;
  }

  mutable absl::Mutex mutex_;
  std::function<EngineLoad()> load_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

class Metrics::Impl {
 public:
  Impl()
      : registry(std::make_shared<prometheus::Registry>()),
        load_page(std::make_shared<LoadPage>()) {}

  prometheus::Counter& Counter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(*registry).Add({});
  }
  prometheus::Histogram& Seconds(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry).Add({}, kSeconds);
  }

  std::shared_ptr<prometheus::Registry> registry;
  std::shared_ptr<LoadPage> load_page;
  prometheus::Family<prometheus::Counter>& requests =
      prometheus::BuildCounter()
          .Name("catserve_requests_total")
          .Help("Calls that ended, by method and status code.")
          .Register(*registry);
  prometheus::Family<prometheus::Counter>& choice_ends =
      prometheus::BuildCounter()
          .Name("catserve_choices_finished_total")
          .Help("Choices that ended, by reason.")
          .Register(*registry);
  prometheus::Family<prometheus::Gauge>& model =
      prometheus::BuildGauge()
          .Name("catserve_model_info")
          .Help("Always 1; the labels name the model served.")
          .Register(*registry);
  prometheus::Gauge& ready = prometheus::BuildGauge()
                                 .Name("catserve_ready")
                                 .Help("1 while new requests are accepted.")
                                 .Register(*registry)
                                 .Add({});
  prometheus::Counter& prompt_tokens =
      Counter("catserve_prompt_tokens_total", "Prompt tokens of requests that ended.");
  prometheus::Counter& cached_tokens =
      Counter("catserve_cached_prompt_tokens_total", "Of these, tokens found in the prefix cache.");
  prometheus::Counter& generated_tokens =
      Counter("catserve_generated_tokens_total", "Tokens that the model generated.");
  prometheus::Histogram& first_token = Seconds("catserve_time_to_first_token_seconds",
                                               "From a request's arrival to its first token.");
  prometheus::Histogram& inter_token =
      Seconds("catserve_inter_token_seconds", "Between consecutive tokens of a choice.");
  prometheus::Histogram& queue =
      Seconds("catserve_queue_seconds", "From a request's acceptance to its first step.");
  std::unique_ptr<prometheus::Exposer> exposer;  // stops first
};

absl::StatusOr<std::unique_ptr<Metrics>> Metrics::Create(const std::string& address) {
  auto impl = std::make_unique<Impl>();
  if (!address.empty()) {
    try {  // the library reports a port that is taken in no other way
      impl->exposer = std::make_unique<prometheus::Exposer>(address, /*num_threads=*/2);
    } catch (const std::exception& error) {
      return absl::UnavailableError(absl::StrCat(
          "--metrics_address=", address, " cannot be listened on (", error.what(),
          "): is another server running there? Use another port, port 0, or --metrics_address= for "
          "no metrics page"));
    }
    impl->exposer->RegisterCollectable(impl->registry);
    impl->exposer->RegisterCollectable(impl->load_page);
  }
  return std::unique_ptr<Metrics>(new Metrics(std::move(impl)));
}

Metrics::Metrics(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Metrics::~Metrics() = default;

int Metrics::port() const {
  if (impl_->exposer == nullptr) return 0;
  const std::vector<int> ports = impl_->exposer->GetListeningPorts();
  return ports.empty() ? 0 : ports.front();
}

void Metrics::WatchLoad(std::function<EngineLoad()> load) {
  impl_->load_page->Watch(std::move(load));
}

void Metrics::SetModel(absl::string_view name, absl::string_view kind) {
  impl_->model.Add({{"name", std::string(name)}, {"kind", std::string(kind)}}).Set(1);
}

void Metrics::SetReady(bool ready) { impl_->ready.Set(ready ? 1 : 0); }

void Metrics::CountRequest(absl::string_view method, grpc::StatusCode code) {
  impl_->requests.Add({{"method", std::string(method)}, {"code", std::string(CodeName(code))}})
      .Increment();
}

void Metrics::CountChoiceEnd(absl::string_view reason) {
  impl_->choice_ends.Add({{"reason", std::string(reason)}}).Increment();
}

void Metrics::CountUsage(const Usage& usage) {
  impl_->prompt_tokens.Increment(usage.prompt_tokens);
  impl_->cached_tokens.Increment(usage.cached_tokens);
  impl_->generated_tokens.Increment(usage.generated_tokens);
  impl_->queue.Observe(absl::ToDoubleSeconds(usage.queued));
}

void Metrics::ObserveTimeToFirstToken(absl::Duration elapsed) {
  impl_->first_token.Observe(absl::ToDoubleSeconds(elapsed));
}

void Metrics::ObserveInterToken(absl::Duration elapsed) {
  impl_->inter_token.Observe(absl::ToDoubleSeconds(elapsed));
}

absl::string_view CodeName(grpc::StatusCode code) {
  static constexpr std::array<absl::string_view, 17> kNames = {"OK",
                                                               "CANCELLED",
                                                               "UNKNOWN",
                                                               "INVALID_ARGUMENT",
                                                               "DEADLINE_EXCEEDED",
                                                               "NOT_FOUND",
                                                               "ALREADY_EXISTS",
                                                               "PERMISSION_DENIED",
                                                               "RESOURCE_EXHAUSTED",
                                                               "FAILED_PRECONDITION",
                                                               "ABORTED",
                                                               "OUT_OF_RANGE",
                                                               "UNIMPLEMENTED",
                                                               "INTERNAL",
                                                               "UNAVAILABLE",
                                                               "DATA_LOSS",
                                                               "UNAUTHENTICATED"};
  const auto index = static_cast<size_t>(code);
  return index < kNames.size() ? kNames[index] : "UNKNOWN";
}

}  // namespace catserve

#include "server/load_page.h"

#include <chrono>
#include <utility>

#include "prometheus/client_metric.h"
#include "prometheus/metric_type.h"

namespace catserve {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily Gauge(const char* name, const char* help, double value) {
  ClientMetric metric;
  metric.gauge.value = value;
  return {name, help, MetricType::Gauge, {metric}};
}

MetricFamily Gauge(const char* name, const char* help, int64_t value) {
  return Gauge(name, help, static_cast<double>(value));
}

struct Part {
  const char* label;
  double value;
};

// One counter for each value of the label.
MetricFamily Counts(const char* name, const char* help, const char* label,
                    const std::vector<Part>& parts) {
  MetricFamily family{name, help, MetricType::Counter, {}};
  for (const Part& part : parts) {
    ClientMetric metric;
    metric.label = {{label, part.label}};
    metric.counter.value = part.value;
    family.metric.push_back(std::move(metric));
  }
  return family;
}

MetricFamily Count(const char* name, const char* help, int64_t value) {
  ClientMetric metric;
  metric.counter.value = static_cast<double>(value);
  return {name, help, MetricType::Counter, {metric}};
}

MetricFamily StepRows(const EngineLoad& load) {
  ClientMetric metric;
  uint64_t steps = 0;
  for (int i = 0; i < kStepRowsBuckets; ++i) {
    steps += load.step_rows[i];
    metric.histogram.bucket.push_back({steps, static_cast<double>(int64_t{1} << i)});
  }
  metric.histogram.sample_count = steps;
  metric.histogram.sample_sum = static_cast<double>(load.rows);
  return {"catserve_step_rows",
          "Rows that entered the decoder in one step.",
          MetricType::Histogram,
          {metric}};
}

MetricFamily StepSeconds(const StepTimes& times) {
  const auto seconds = [](std::chrono::nanoseconds time) {
    return std::chrono::duration<double>(time).count();
  };
  return Counts("catserve_step_seconds_total", "Time of the step thread, by part.", "part",
                {{"plan", seconds(times.plan)},
                 {"prepare", seconds(times.prepare)},
                 {"compress", seconds(times.compress)},
                 {"decode", seconds(times.decode)},
                 {"sample", seconds(times.sample)},
                 {"wait", seconds(times.wait)},
                 {"commit", seconds(times.commit)}});
}

MetricFamily StepPartsRun(const StepParts& parts) {
  return Counts("catserve_step_parts_total",
                "Parts of steps that recur, by how they reached the device.", "how",
                {{"replayed", static_cast<double>(parts.replayed)},
                 {"recorded", static_cast<double>(parts.recorded)},
                 {"first", static_cast<double>(parts.first)},
                 {"differed", static_cast<double>(parts.differed)},
                 {"refused", static_cast<double>(parts.refused)}});
}

double Ratio(int64_t part, int64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

void AddMemory(const EngineLoad& load, const EntryBytes& bytes,
               std::vector<MetricFamily>& families) {
  families.push_back(Gauge("catserve_kv_pages_used", "Pages of KV memory that sequences hold.",
                           load.kv_pages_used));
  families.push_back(Gauge("catserve_kv_pages_cached", "Pages that the prefix cache alone holds.",
                           load.kv_pages_cached));
  families.push_back(
      Gauge("catserve_kv_pages_capacity", "Pages of KV memory.", load.kv_pages_total));
  families.push_back(Gauge("catserve_kv_usage_ratio", "Pages used over all pages.",
                           Ratio(load.kv_pages_used, load.kv_pages_total)));
  families.push_back(Gauge("catserve_kv_used_bytes", "KV memory that sequences hold.",
                           load.kv_pages_used * kPageEntries * bytes.served));
  if (bytes.dense_twin > 0) {
    families.push_back(Gauge("catserve_kv_dense_twin_bytes",
                             "What the dense twin would hold for the same sequences.",
                             load.dense_pages * kPageEntries * bytes.dense_twin));
  }
  families.push_back(Gauge("catserve_kv_dense_same_width_bytes",
                           "What this model's decoder would hold without compression.",
                           load.dense_pages * kPageEntries * bytes.served));
  families.push_back(
      Gauge("catserve_live_tokens", "Tokens read by the sequences that run.", load.live_tokens));
}

}  // namespace

std::vector<MetricFamily> LoadFamilies(const EngineLoad& load, const EntryBytes& bytes) {
  std::vector<MetricFamily> families = {
      Gauge("catserve_running_requests", "Requests with a sequence in a slot.",
            int64_t{load.running}),
      Gauge("catserve_waiting_requests", "Requests in the queue.", int64_t{load.waiting}),
      Gauge("catserve_waiting_requests_capacity", "Requests that may wait.",
            int64_t{load.waiting_max}),
      Gauge("catserve_paused_requests", "Requests whose readers are behind.", int64_t{load.paused}),
      Count("catserve_steps_total", "Steps of the engine.", load.steps),
      Count("catserve_decoder_rows_total", "Rows that entered the decoder.", load.rows),
      Count("catserve_chunks_compressed_total", "Chunks compressed.", load.chunks_compressed),
      Count("catserve_prefix_cache_query_tokens_total", "Prompt tokens looked up in the cache.",
            load.prefix_query_tokens),
      Count("catserve_prefix_cache_hit_tokens_total", "Of these, tokens found.",
            load.prefix_hit_tokens),
      Counts("catserve_budget_changes_total", "Requests whose chunk size the server changed.",
             "direction",
             {{"coarser", static_cast<double>(load.budgets_coarsened)},
              {"finer", static_cast<double>(load.budgets_refined)}}),
      Count("catserve_preemptions_total", "Requests that lost their memory and were redone.",
            load.preemptions),
      StepRows(load),
      StepSeconds(load.times),
      StepPartsRun(load.parts),
  };
  AddMemory(load, bytes, families);
  return families;
}

void LoadPage::Watch(std::function<EngineLoad()> load) {
  absl::MutexLock lock(&mutex_);
  load_ = std::move(load);
}

void LoadPage::SetEntryBytes(EntryBytes bytes) {
  absl::MutexLock lock(&mutex_);
  bytes_ = bytes;
}

std::vector<MetricFamily> LoadPage::Collect() const {
  absl::MutexLock lock(&mutex_);
  return load_ ? LoadFamilies(load_(), bytes_) : std::vector<MetricFamily>{};
}

}  // namespace catserve

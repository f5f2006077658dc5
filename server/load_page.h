// The metrics that the engine's load gives: asked for at every scrape, so never stale.
#pragma once

#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

namespace catserve {

// Bytes of an entry of KV memory.
struct EntryBytes {
  int64_t served = 0;
  int64_t dense_twin = 0;  // 0: the card names none
};

// Thread-safe.
class LoadPage : public prometheus::Collectable {
 public:
  // nullptr: nothing to tell any more.
  void Watch(std::function<EngineLoad()> load);
  void SetEntryBytes(EntryBytes bytes);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  mutable absl::Mutex mutex_;
  std::function<EngineLoad()> load_ ABSL_GUARDED_BY(mutex_);
  EntryBytes bytes_ ABSL_GUARDED_BY(mutex_);
};

// One metric family for each figure. Pure.
std::vector<prometheus::MetricFamily> LoadFamilies(const EngineLoad& load, const EntryBytes& bytes);

}  // namespace catserve

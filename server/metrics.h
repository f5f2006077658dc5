// Counters and histograms, and the page that Prometheus reads them from.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/schedule/request.h"
#include "grpcpp/support/status.h"

namespace catserve {

// Thread-safe; counting never waits for a scrape of the page.
class Metrics {
 public:
  // Serves GET /metrics at host:port (port 0: the system chooses); empty: counts without a page.
  // Errors: INVALID_ARGUMENT or UNAVAILABLE naming the address and the remedy.
  static absl::StatusOr<std::unique_ptr<Metrics>> Create(const std::string& address);
  ~Metrics();

  int port() const;  // 0 without a page

  // Gauges ask this at every scrape, from now on. It must be cheap and thread-safe.
  void WatchLoad(std::function<EngineLoad()> load);
  void SetModel(absl::string_view name, absl::string_view kind);
  void SetReady(bool ready);

  void CountRequest(absl::string_view method, grpc::StatusCode code);
  void CountChoiceEnd(absl::string_view reason);
  void CountUsage(const Usage& usage);
  void ObserveTimeToFirstToken(absl::Duration elapsed);
  void ObserveInterToken(absl::Duration elapsed);

 private:
  class Impl;
  explicit Metrics(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// "OK", "INVALID_ARGUMENT", ...
absl::string_view CodeName(grpc::StatusCode code);

}  // namespace catserve

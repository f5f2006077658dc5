// What an operator sees of a running server: counters and histograms, the requests' traces, and the
// pages that show them. docs/operations.md lists every metric.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/schedule/request.h"
#include "grpcpp/support/status.h"
#include "server/request_trace.h"
#include "server/served_model.h"

namespace prometheus {
class Counter;
}  // namespace prometheus

namespace catserve {

// Of one chunk size; they live as long as the Metrics.
struct TokenCounters {
  prometheus::Counter* prompt = nullptr;
  prometheus::Counter* cached = nullptr;
  prometheus::Counter* generated = nullptr;
};

// Where the time of a request that was accepted went. Absent: it did not come to that.
struct RequestTimes {
  absl::Duration queued;
  std::optional<absl::Duration> prefilling;
  std::optional<absl::Duration> decoding;
  absl::Duration whole;  // since the call arrived
};

// Thread-safe; counting never waits for a scrape of the page, and the step thread does not count.
class Metrics {
 public:
  // Serves GET /metrics and /debug/requests at host:port (port 0: the system chooses); empty:
  // counts without pages. Errors: UNAVAILABLE naming the address and the remedy.
  static absl::StatusOr<std::unique_ptr<Metrics>> Create(const std::string& address);
  ~Metrics();

  int port() const;          // 0 without pages
  std::string Text() const;  // what GET /metrics answers
  RequestTraces& traces();

  // Whether each request that was accepted leaves a line in the log at its end. Default: no.
  void SetLogRequests(bool log) { log_requests_ = log; }
  bool logs_requests() const { return log_requests_; }

  // Gauges ask this at every scrape, from now on. It must be cheap and thread-safe.
  void WatchLoad(std::function<EngineLoad()> load);
  void SetModel(const ServedModel& model);
  void SetReady(bool ready);

  // `method`: a method of the API, as "Generate".
  void CountRequest(absl::string_view method, grpc::StatusCode code);
  void CountChoiceEnd(FinishReason reason);
  void ObserveTimeToFirstToken(absl::Duration elapsed);
  void ObserveInterToken(absl::Duration elapsed);
  void ObserveTimes(absl::string_view method, const RequestTimes& times);

  // Asked for once per request and change of its budget; counting itself looks nothing up.
  TokenCounters CountersOf(int32_t chunk_size);

 private:
  class Impl;
  explicit Metrics(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
  std::atomic<bool> log_requests_ = false;
};

// "OK", "INVALID_ARGUMENT", ...
std::string CodeName(grpc::StatusCode code);

// "stop", "length", "aborted", ...
absl::string_view ReasonName(FinishReason reason);

}  // namespace catserve

// One Generate call of the load, and what is kept of it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "bench/serve_load/workload.h"
#include "catserve/v1/generation.grpc.pb.h"
#include "grpcpp/alarm.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"

namespace catserve {

// Seconds since the start of the run. Thread-safe.
class Stopwatch {
 public:
  using Clock = std::chrono::steady_clock;

  double Seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  Clock::time_point At(double seconds) const {
    return start_ +
           std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  }

 private:
  const Clock::time_point start_ = Clock::now();
};

// Times are seconds since the start of the run.
struct CallRecord {
  Shot shot;
  double arrival = 0;  // when the workload wanted it: latencies count from here
  double sent = 0;
  double end = 0;
  std::vector<double> token_times;  // one for each token; tokens of one message share a time
  bool sent_at_all = true;          // false: too many were in flight
  bool cancelled = false;           // by this client, as the workload wished
  bool gave_up = false;             // cancelled because no token came in time
  bool cut = false;                 // cancelled because the run was over
  grpc::StatusCode code = grpc::StatusCode::OK;
  std::string message;
  v1::FinishReason reason = v1::FINISH_REASON_UNSPECIFIED;
  int32_t chunk_size_first = 0;  // of `started`; 0: dense
  int32_t chunk_size_last = 0;
  int32_t cached_tokens = 0;
  int32_t budget_changes = 0;
  int64_t kv_bytes_peak = 0;
  double queued_seconds = 0;
};

// Starts, reads to the end, and tells. Its reactions run on gRPC's threads, one at a time.
class LoadCall final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  struct Setup {
    const Stopwatch* watch = nullptr;
    std::atomic<int64_t>* tokens = nullptr;  // counts tokens of all calls
    double slow_pause_ms = 0;
    // Called once, last of all; may destroy the call.
    std::function<void(LoadCall*)> on_end;
  };

  LoadCall(Setup setup, CallRecord record)
      : setup_(std::move(setup)), arrival_(record.arrival), record_(std::move(record)) {}

  void Start(v1::Generation::Stub& stub, const v1::GenerateRequest& request);
  // The run is over. Any thread, also after the end.
  void Cut();
  // Cancels a call that has had no token `patience` seconds after its arrival. Any thread, also
  // after the end.
  void GiveUpIfSilent(double patience);
  CallRecord& record() { return record_; }  // REQUIRES: ended, or not started

  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  void Take(const v1::GenerateResponse& response);
  void TakeTokens(const v1::Tokens& tokens);
  void ReadOn();

  Setup setup_;
  const double arrival_;
  CallRecord record_;
  std::atomic<bool> cut_ = false;
  std::atomic<bool> silent_ = true;  // no token has come
  std::atomic<bool> gave_up_ = false;
  grpc::ClientContext context_;
  v1::GenerateResponse response_;  // one for all reads: its memory is used again
  grpc::Alarm pause_;
};

// The message that asks for `shot`.
v1::GenerateRequest MakeRequest(const Shot& shot, const std::vector<int32_t>& prompt,
                                double temperature, bool bypass_prefix_cache);

}  // namespace catserve

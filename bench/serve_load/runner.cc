#include "bench/serve_load/runner.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <thread>
#include <unordered_map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "catserve/v1/model.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace catserve {
namespace {

constexpr int kStreamsPerChannel = 1000;  // servers allow 1,024 on a connection
constexpr int kSlowWindowBytes = 64;      // what the transport takes in for a slow reader
constexpr absl::Duration kPatience = absl::Seconds(30);  // of what is asked beside the load

std::shared_ptr<grpc::Channel> Connect(const std::string& server, bool slow) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  if (slow) {
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kSlowWindowBytes);
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  }
  return grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
}

class Run {
 public:
  explicit Run(const LoadOptions& options);

  RunResult Go();

 private:
  // The sending thread.
  void SendOpenLoop();
  void SendClosedLoop();
  void Send(double arrival);

  // Any thread.
  void Ended(LoadCall* call);

  // The thread that called Go().
  void Watch();
  void TakeSample();
  void GiveUpOnSilentCalls();
  void ShowProgress(bool last);
  void CutTheRest();

  const LoadOptions& options_;
  const Stopwatch watch_;
  Workload workload_;
  std::atomic<int64_t> tokens_ = 0;
  RunResult result_;
  Sample shown_;

  absl::Mutex mutex_;
  std::unordered_map<LoadCall*, std::shared_ptr<LoadCall>> live_ ABSL_GUARDED_BY(mutex_);
  std::vector<CallRecord> ended_ ABSL_GUARDED_BY(mutex_);
  int64_t sent_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  bool sending_ ABSL_GUARDED_BY(mutex_) = true;

  // Connections go first: the last one waits for gRPC's threads, which use what is above.
  std::unique_ptr<v1::Models::Stub> models_;
  std::vector<std::unique_ptr<v1::Generation::Stub>> stubs_;
  std::unique_ptr<v1::Generation::Stub> slow_stub_;
};

Run::Run(const LoadOptions& options)
    : options_(options),
      workload_(options.workload),
      models_(v1::Models::NewStub(Connect(options.server, false))) {
  const int in_flight = options.open_loop() ? options.in_flight_max : options.concurrency;
  for (int i = 0; i < in_flight; i += kStreamsPerChannel) {
    stubs_.push_back(v1::Generation::NewStub(Connect(options.server, false)));
  }
  slow_stub_ = v1::Generation::NewStub(Connect(options.server, true));
}

RunResult Run::Go() {
  std::thread sender([this] {
    options_.open_loop() ? SendOpenLoop() : SendClosedLoop();
    absl::MutexLock lock(&mutex_);
    sending_ = false;
    result_.send_seconds = watch_.Seconds();
  });
  Watch();
  sender.join();
  CutTheRest();
  TakeSample();  // the counters' last values
  ShowProgress(/*last=*/true);
  absl::MutexLock lock(&mutex_);
  result_.calls = std::move(ended_);
  std::sort(result_.calls.begin(), result_.calls.end(),
            [](const CallRecord& a, const CallRecord& b) { return a.shot.index < b.shot.index; });
  return std::move(result_);
}

void Run::SendOpenLoop() {
  PoissonArrivals arrivals(options_.phases, options_.workload.seed);
  for (int32_t i = 0; i < options_.requests_max; ++i) {
    const std::optional<double> at = arrivals.Next();
    std::this_thread::sleep_until(watch_.At(at.value_or(options_.duration_seconds)));
    if (!at) return;
    Send(*at);
  }
}

void Run::SendClosedLoop() {
  for (int32_t i = 0; i < options_.requests_max; ++i) {
    {
      const auto room = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return in_flight_ < options_.concurrency;
      };
      absl::MutexLock lock(&mutex_);
      const double left = options_.duration_seconds - watch_.Seconds();
      if (left <= 0 || !mutex_.AwaitWithTimeout(absl::Condition(&room), absl::Seconds(left))) {
        return;
      }
    }
    Send(watch_.Seconds());
  }
}

void Run::Send(double arrival) {
  CallRecord record;
  record.shot = workload_.Next();
  record.arrival = arrival;
  LoadCall::Setup setup{&watch_, &tokens_, options_.slow_pause_ms,
                        [this](LoadCall* call) { Ended(call); }};
  const v1::GenerateRequest request =
      MakeRequest(record.shot, workload_.Prompt(record.shot), options_.temperature,
                  options_.bypass_prefix_cache);
  std::shared_ptr<LoadCall> call;
  {
    absl::MutexLock lock(&mutex_);
    if (options_.open_loop() && in_flight_ >= options_.in_flight_max) {
      record.sent_at_all = false;
      record.sent = record.end = watch_.Seconds();
      ended_.push_back(std::move(record));
      return;
    }
    ++sent_;
    ++in_flight_;
    record.sent = watch_.Seconds();
    call = std::make_shared<LoadCall>(std::move(setup), std::move(record));
    live_.emplace(call.get(), call);
  }
  const Shot& shot = call->record().shot;
  v1::Generation::Stub& stub = shot.slow ? *slow_stub_ : *stubs_[shot.index % stubs_.size()];
  call->Start(stub, request);
}

void Run::Ended(LoadCall* call) {
  CallRecord record = std::move(call->record());
  std::shared_ptr<LoadCall> last;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = live_.find(call);
    last = std::move(it->second);
    live_.erase(it);
  }
  // A call holds its connection, and a connection that gRPC's own thread is the last to leave waits
  // for that thread: so first the call goes, then the run may see that it ended, and end.
  last.reset();
  absl::MutexLock lock(&mutex_);
  ended_.push_back(std::move(record));
  --in_flight_;
}

void Run::Watch() {
  const auto over = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !sending_ && in_flight_ == 0;
  };
  const double end = options_.duration_seconds + options_.drain_seconds;
  while (watch_.Seconds() < end) {
    TakeSample();
    ShowProgress(/*last=*/false);
    if (options_.patience_ms > 0) GiveUpOnSilentCalls();
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&over), absl::Milliseconds(options_.poll_ms))) {
      return;
    }
  }
}

void Run::GiveUpOnSilentCalls() {
  std::vector<std::shared_ptr<LoadCall>> calls;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [key, call] : live_) calls.push_back(call);
  }
  for (const auto& call : calls) call->GiveUpIfSilent(options_.patience_ms / 1000);
}

void Run::TakeSample() {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  v1::GetLoadResponse load;
  if (!models_->GetLoad(&context, {}, &load).ok()) return;
  Sample sample;
  sample.at = watch_.Seconds();
  sample.tokens = tokens_;
  sample.server_running = load.running_requests();
  sample.server_waiting = load.waiting_requests();
  sample.kv_pages_used = load.kv_pages_used();
  sample.kv_pages_cached = load.kv_pages_cached();
  sample.preemptions = load.preemptions();
  sample.budgets_coarsened = load.budgets_coarsened();
  sample.budgets_refined = load.budgets_refined();
  result_.kv_pages_total = load.kv_pages_total();
  absl::MutexLock lock(&mutex_);
  sample.sent = sent_;
  sample.done = sent_ - in_flight_;
  result_.samples.push_back(sample);
}

void Run::ShowProgress(bool last) {
  Sample now;
  now.at = watch_.Seconds();
  now.tokens = tokens_;
  if (!last && now.at - shown_.at < 1) return;
  {
    absl::MutexLock lock(&mutex_);
    now.sent = sent_;
    now.done = sent_ - in_flight_;
  }
  const double rate = static_cast<double>(now.tokens - shown_.tokens) / (now.at - shown_.at);
  std::fprintf(stderr, "\r%6.1f s  sent %ld  running %ld  done %ld  %.1f tokens/s    %s", now.at,
               static_cast<long>(now.sent), static_cast<long>(now.sent - now.done),
               static_cast<long>(now.done), rate, last ? "\n" : "");
  shown_ = now;
}

void Run::CutTheRest() {
  std::vector<std::shared_ptr<LoadCall>> rest;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [key, call] : live_) rest.push_back(call);
  }
  for (const auto& call : rest) call->Cut();  // outside of the lock: reactions may run in it
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return in_flight_ == 0; };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&none));
}

}  // namespace

absl::StatusOr<v1::GetModelResponse> AskModel(const std::string& server) {
  const auto stub = v1::Models::NewStub(Connect(server, false));
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  v1::GetModelResponse model;
  const grpc::Status status = stub->GetModel(&context, {}, &model);
  if (status.ok()) return model;
  return absl::UnavailableError(absl::StrCat("no answer from --server=", server, ": ",
                                             status.error_message(), "; is catserved running?"));
}

RunResult RunLoad(const LoadOptions& options) { return Run(options).Go(); }

}  // namespace catserve

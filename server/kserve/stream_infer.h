// ModelStreamInfer: many requests on one stream, each answered by several responses.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "server/kserve/infer_response.h"
#include "server/kserve/inner_call.h"
#include "server/metrics.h"
#include "server/served_model.h"

namespace catserve::kserve {

// Requests of one stream that run or whose answers wait to be written; more are not read before.
inline constexpr size_t kStreamRequestsMax = 64;

class StreamInfer;

// The streams that are not at their end. Thread-safe.
class LiveStreams {
 public:
  void Add(StreamInfer* stream) {
    absl::MutexLock lock(&mutex_);
    streams_.insert(stream);
  }
  void Remove(StreamInfer* stream) {
    absl::MutexLock lock(&mutex_);
    streams_.erase(stream);
  }
  // Cancels those whose readers have not taken a response since before `since`.
  void CancelStalled(absl::Time since);

 private:
  absl::Mutex mutex_;
  std::set<StreamInfer*> streams_ ABSL_GUARDED_BY(mutex_);
};

// A request that fails is answered with an error message and harms no other. Each request has at
// most one response waiting to be written: a slow client slows its requests, and nobody else. One
// that takes nothing for as long as a reader of Generate may is cancelled (LiveStreams).
// Deletes itself.
class StreamInfer final : public grpc::ServerBidiReactor<inference::ModelInferRequest,
                                                         inference::ModelStreamInferResponse> {
 public:
  struct Parts {  // outlive the stream
    const Gate* gate = nullptr;
    LiveStreams* live = nullptr;
    Metrics* metrics = nullptr;
    v1::Generation::Stub* stub = nullptr;
    grpc::CallbackServerContext* context = nullptr;
  };
  explicit StreamInfer(Parts parts);

  void CancelIfStalled(absl::Time since);  // LiveStreams alone

 private:
  using Response = inference::ModelStreamInferResponse;
  // A request under way.
  struct Branch {
    Branch(const inference::ModelInferRequest& request, const InferRequest& read)
        : id(request.id()), answer(request, read) {}
    const std::string id;
    InferAnswer answer;
    std::unique_ptr<InnerCall> call;
  };
  struct Outgoing {
    Response response;
    Branch* branch = nullptr;  // goes on once this is written; null: none
  };

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  absl::Status Begin() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnEvent(Branch& branch, const v1::GenerateResponse& event) ABSL_LOCKS_EXCLUDED(mutex_);
  void OnBranchDone(Branch& branch, const grpc::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  void PushError(const std::string& id, const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveUp() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Starts the next write and the next read, if they are due. True once, when all is said: then
  // Finish, without the lock and touching nothing after it, since that may delete this.
  bool GoOn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Parts parts_;
  inference::ModelInferRequest request_;  // being read

  absl::Mutex mutex_;
  std::map<const Branch*, std::unique_ptr<Branch>> branches_ ABSL_GUARDED_BY(mutex_);
  std::deque<Outgoing> outgoing_ ABSL_GUARDED_BY(mutex_);  // the first one is being written
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time write_start_ ABSL_GUARDED_BY(mutex_);
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool reads_done_ ABSL_GUARDED_BY(mutex_) = false;
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;  // the client
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace catserve::kserve

// One streaming call between the engine and its client.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/engine.h"
#include "grpcpp/support/server_callback.h"
#include "server/delivery.h"
#include "server/live_requests.h"
#include "server/owner.h"
#include "server/reader_lag.h"
#include "server/reply.h"
#include "server/request_meter.h"

namespace catserve {

// Marks a call that comes through gRPC's in-process transport (see TokenStream::in_process_).
// From outside it does no harm.
inline constexpr char kInProcessHeader[] = "catserve-in-process";

// The way of an event: the step thread queues it (Push); the delivery thread turns it into messages
// and starts a write; gRPC reports the write done and the next one starts. At most one write is
// under way, so a slow reader stalls nobody; once too many tokens wait for it, its request pauses
// in the engine (ReaderLag), so it costs no computing that nobody reads.
//
// Exactly one Finish per call, and only after the engine's FinishedEvent, when its memory is free.
// Keeps itself alive from Start until both the call and the engine are done with it.
class TokenStream : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                    public std::enable_shared_from_this<TokenStream> {
 public:
  struct Parts {
    Engine* engine = nullptr;
    Delivery* delivery = nullptr;
    LiveRequests* live = nullptr;
    grpc::CallbackServerContext* context = nullptr;
    RequestName request;
    std::unique_ptr<Reply> reply;
    std::unique_ptr<RequestMeter> meter;
    std::unique_ptr<Seat> seat;         // null: its owner has no limits
    int32_t reader_lag_tokens_max = 0;  // >= 1: more waiting tokens than this pause the request
  };

  // Reserves the request's name, submits, and charges the prompt to its owner. On success gRPC owns
  // the stream. Errors: ALREADY_EXISTS, RESOURCE_EXHAUSTED, and those of Engine::Submit; the meter
  // is then not told of an end.
  static absl::StatusOr<TokenStream*> Start(Parts parts, Request request);

  // Ends the request as Abort does: with `finished`, not with a status. Any thread.
  void Abort();

  // Cancels the call if one message has waited for its reader since before `since`. Any thread.
  void CancelIfStalled(absl::Time since);

 private:
  explicit TokenStream(Parts parts);

  void Charge(int64_t tokens);  // to the owner; before the stream is submitted, or on delivery
  void Push(Event event);       // step thread
  void Submitted(RequestKey key);
  void Post() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Deliver();  // delivery thread, as the next two
  void PauseOrResume(RequestKey key);
  void WriteNext();
  void CancelInEngine() ABSL_LOCKS_EXCLUDED(mutex_);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  const Parts parts_;
  // The in-process transport loses a message that is not yet read when the status comes: the end
  // waits until the last message is taken.
  const bool in_process_;
  std::shared_ptr<TokenStream> self_;  // while gRPC holds a plain pointer

  // Delivery thread only.
  std::optional<grpc::Status> end_;  // set by the engine's last event
  bool finishing_ = false;
  grpc::ByteBuffer in_flight_;
  int32_t in_flight_tokens_ = 0;
  ReaderLag lag_;

  absl::Mutex mutex_;
  std::vector<TimedEvent> arrived_ ABSL_GUARDED_BY(mutex_);
  std::optional<RequestKey> key_ ABSL_GUARDED_BY(mutex_);
  bool posted_ ABSL_GUARDED_BY(mutex_) = false;  // a Deliver waits in the delivery's queue
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time write_start_ ABSL_GUARDED_BY(mutex_);
  bool left_ ABSL_GUARDED_BY(mutex_) = false;       // the client is gone
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;  // by the client, Abort or a failed write

  absl::Mutex context_mutex_;                          // held while another thread uses the context
  bool done_ ABSL_GUARDED_BY(context_mutex_) = false;  // the context is gone, or soon will be
};

}  // namespace catserve

// One call of our own Generate, made inside the process on behalf of a client of another protocol.
#pragma once

#include <functional>
#include <string>

#include "catserve/v1/generation.grpc.pb.h"
#include "grpcpp/client_context.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/client_callback.h"

namespace catserve::kserve {

// Limits, metrics, tokens and traces are those of any other call: the caller's authorization or the
// name on its certificate, traceparent and deadline go along.
//
// Reads one event at a time: the next one only after Next, so that a slow client slows its own
// request as the main contract's streams do. Callbacks come one at a time, on gRPC's threads.
class InnerCall final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  struct Callbacks {
    std::function<void(const v1::GenerateResponse&)> event;
    std::function<void(const grpc::Status&)> done;  // last; may delete the call
  };

  // REQUIRES: the stub outlives the call; the request lives until Start has returned.
  InnerCall(v1::Generation::Stub& stub, const v1::GenerateRequest& request,
            const grpc::CallbackServerContext& outer, Callbacks callbacks);

  void Start() { StartCall(); }
  // Asks for the next event. REQUIRES: called once after each event, until done.
  void Next() { StartRead(&event_); }
  void Cancel() { context_.TryCancel(); }  // any thread, until done

  // The pushback header of a refusal, for the outer call; empty: none. Within `done`.
  std::string Pushback() const;

 private:
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

  grpc::ClientContext context_;
  Callbacks callbacks_;
  v1::GenerateResponse event_;
};

}  // namespace catserve::kserve

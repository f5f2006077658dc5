// ModelInfer: one request, one answer with the whole text.
#pragma once

#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "server/kserve/infer_response.h"
#include "server/kserve/inner_call.h"

namespace catserve::kserve {

// Deletes itself.
class UnaryInfer final : public grpc::ServerUnaryReactor {
 public:
  struct Call {
    v1::Generation::Stub* stub = nullptr;
    grpc::CallbackServerContext* context = nullptr;
    const inference::ModelInferRequest* request = nullptr;
    inference::ModelInferResponse* response = nullptr;
  };
  UnaryInfer(const Call& call, const InferRequest& read);

 private:
  void OnInnerDone(const grpc::Status& status);
  void OnCancel() override { inner_.Cancel(); }
  void OnDone() override { delete this; }

  const Call call_;
  InferAnswer answer_;
  InnerCall inner_;
};

}  // namespace catserve::kserve

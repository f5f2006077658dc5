// inference.GRPCInferenceService: the KServe v2 protocol, for clients that speak it already.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "catserve/v1/generation.grpc.pb.h"
#include "grpcpp/channel.h"
#include "inference/kserve.grpc.pb.h"
#include "server/kserve/infer_request.h"
#include "server/kserve/stream_infer.h"
#include "server/refusal.h"
#include "server/served_model.h"

namespace catserve::kserve {

// A translation in front of our own contract: each inference becomes a Generate call inside the
// process, so that limits, budgets, metrics and errors are the same for all clients. One that is
// refused before is counted by its own method's name.
class KServeService final : public inference::GRPCInferenceService::CallbackService {
 public:
  // REQUIRES: gate and desk outlive the service. Whether the server is live and ready needs no
  // token, as with health.
  KServeService(const Gate& gate, const Desk& desk) : gate_(gate), desk_(desk) {}

  // A channel to the server that this service is part of. REQUIRES: called before the gate opens.
  void Connect(std::shared_ptr<grpc::Channel> channel);

  // Cancels streams whose readers have not taken a response since before `since`.
  void CancelStalled(absl::Time since) { streams_.CancelStalled(since); }

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* context,
                                       const inference::ServerLiveRequest* request,
                                       inference::ServerLiveResponse* response) override;
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* context,
                                        const inference::ServerReadyRequest* request,
                                        inference::ServerReadyResponse* response) override;
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* context,
                                       const inference::ModelReadyRequest* request,
                                       inference::ModelReadyResponse* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* context,
                                           const inference::ServerMetadataRequest* request,
                                           inference::ServerMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* context,
                                          const inference::ModelMetadataRequest* request,
                                          inference::ModelMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelConfig(grpc::CallbackServerContext* context,
                                        const inference::ModelConfigRequest* request,
                                        inference::ModelConfigResponse* response) override;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override;
  grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
  ModelStreamInfer(grpc::CallbackServerContext* context) override;

 private:
  // The served model, if the caller is known and names it. Errors: UNAUTHENTICATED, UNAVAILABLE,
  // NOT_FOUND.
  absl::StatusOr<const ServedModel*> Named(const grpc::CallbackServerContext& context,
                                           const std::string& name,
                                           const std::string& version) const;
  absl::StatusOr<InferRequest> Read(const grpc::CallbackServerContext& context,
                                    const inference::ModelInferRequest& request) const;

  const Gate& gate_;
  const Desk desk_;
  LiveStreams streams_;
  std::unique_ptr<v1::Generation::Stub> stub_;
};

}  // namespace catserve::kserve

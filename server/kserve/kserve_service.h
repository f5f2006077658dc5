// inference.GRPCInferenceService: the KServe v2 protocol, for clients that speak it already.
#pragma once

#include <memory>

#include "catserve/v1/generation.grpc.pb.h"
#include "grpcpp/channel.h"
#include "inference/kserve.grpc.pb.h"
#include "server/access.h"
#include "server/served_model.h"

namespace catserve::kserve {

// A translation in front of our own contract: each inference becomes a Generate call inside the
// process, so that limits, budgets, metrics and errors are the same for all clients.
class KServeService final : public inference::GRPCInferenceService::CallbackService {
 public:
  // REQUIRES: both outlive the service. What says no more than health needs no token, as there.
  KServeService(const Gate& gate, const Access& access) : gate_(gate), access_(access) {}

  // A channel to the server that this service is part of. REQUIRES: called before the gate opens.
  void Connect(std::shared_ptr<grpc::Channel> channel);

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
  const Gate& gate_;
  const Access& access_;
  std::unique_ptr<v1::Generation::Stub> stub_;
};

}  // namespace catserve::kserve

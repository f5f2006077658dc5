#include "server/kserve/kserve_service.h"

#include <utility>

#include "server/kserve/description.h"
#include "server/kserve/infer_request.h"
#include "server/kserve/stream_infer.h"
#include "server/kserve/unary_infer.h"
#include "server/status.h"

namespace catserve::kserve {
namespace {

grpc::ServerUnaryReactor* End(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

// The served model, if it is the one that a request names.
template <typename Request>
absl::StatusOr<const ServedModel*> Named(const Gate& gate, const Request& request) {
  const absl::StatusOr<const ServedModel*> model = gate.Model();
  if (!model.ok()) return model.status();
  absl::Status known = CheckModel(request.name(), request.version(), (*model)->name);
  if (!known.ok()) return known;
  return *model;
}

}  // namespace

void KServeService::Connect(std::shared_ptr<grpc::Channel> channel) {
  stub_ = v1::Generation::NewStub(std::move(channel));
}

grpc::ServerUnaryReactor* KServeService::ServerLive(grpc::CallbackServerContext* context,
                                                    const inference::ServerLiveRequest*,
                                                    inference::ServerLiveResponse* response) {
  response->set_live(true);
  return End(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* KServeService::ServerReady(grpc::CallbackServerContext* context,
                                                     const inference::ServerReadyRequest*,
                                                     inference::ServerReadyResponse* response) {
  response->set_ready(gate_.state() == Gate::State::kServing);
  return End(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* KServeService::ModelReady(grpc::CallbackServerContext* context,
                                                    const inference::ModelReadyRequest* request,
                                                    inference::ModelReadyResponse* response) {
  const absl::StatusOr<const ServedModel*> model = Named(gate_, *request);
  if (absl::IsNotFound(model.status())) return End(context, model.status());
  response->set_ready(gate_.state() == Gate::State::kServing);
  return End(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* KServeService::ServerMetadata(grpc::CallbackServerContext* context,
                                                        const inference::ServerMetadataRequest*,
                                                        inference::ServerMetadataResponse* out) {
  out->set_name("catserve");
  out->set_version(CATSERVE_VERSION);
  return End(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* KServeService::ModelMetadata(
    grpc::CallbackServerContext* context, const inference::ModelMetadataRequest* request,
    inference::ModelMetadataResponse* response) {
  if (auto caller = access_.Identify(*context); !caller.ok()) return End(context, caller.status());
  const absl::StatusOr<const ServedModel*> model = Named(gate_, *request);
  if (model.ok()) *response = DescribeTensors(**model);
  return End(context, model.status());
}

grpc::ServerUnaryReactor* KServeService::ModelConfig(grpc::CallbackServerContext* context,
                                                     const inference::ModelConfigRequest* request,
                                                     inference::ModelConfigResponse* response) {
  if (auto caller = access_.Identify(*context); !caller.ok()) return End(context, caller.status());
  const absl::StatusOr<const ServedModel*> model = Named(gate_, *request);
  if (model.ok()) *response->mutable_config() = DescribeConfig(**model);
  return End(context, model.status());
}

grpc::ServerUnaryReactor* KServeService::ModelInfer(grpc::CallbackServerContext* context,
                                                    const inference::ModelInferRequest* request,
                                                    inference::ModelInferResponse* response) {
  if (auto caller = access_.Identify(*context); !caller.ok()) return End(context, caller.status());
  const absl::StatusOr<const ServedModel*> model = gate_.Enter();
  if (!model.ok()) return End(context, model.status());
  absl::Status known = CheckModel(request->model_name(), request->model_version(), (*model)->name);
  if (!known.ok()) return End(context, known);
  const absl::StatusOr<InferRequest> read = ReadInfer(*request);
  if (!read.ok()) return End(context, read.status());
  return new UnaryInfer({stub_.get(), context, request, response}, *read);
}

grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
KServeService::ModelStreamInfer(grpc::CallbackServerContext* context) {
  return new StreamInfer({&gate_, stub_.get(), context});
}

}  // namespace catserve::kserve

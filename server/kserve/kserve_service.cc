#include "server/kserve/kserve_service.h"

#include <utility>

#include "server/kserve/description.h"
#include "server/kserve/refusal.h"
#include "server/kserve/stream_infer.h"
#include "server/kserve/unary_infer.h"
#include "server/status.h"

namespace catserve::kserve {
namespace {

grpc::ServerUnaryReactor* End(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(Shortened(status)));
  return reactor;
}

}  // namespace

void KServeService::Connect(std::shared_ptr<grpc::Channel> channel) {
  stub_ = v1::Generation::NewStub(std::move(channel));
}

absl::StatusOr<const ServedModel*> KServeService::Named(const grpc::CallbackServerContext& context,
                                                        const std::string& name,
                                                        const std::string& version) const {
  if (auto caller = desk_.access->Identify(context); !caller.ok()) return caller.status();
  const absl::StatusOr<const ServedModel*> model = gate_.Model();
  if (!model.ok()) return model.status();
  absl::Status known = CheckModel(name, version, (*model)->name);
  if (!known.ok()) return known;
  return *model;
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
  const absl::StatusOr<const ServedModel*> model =
      Named(*context, request->name(), request->version());
  if (!model.ok() && !absl::IsUnavailable(model.status())) return End(context, model.status());
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
  const absl::StatusOr<const ServedModel*> model =
      Named(*context, request->name(), request->version());
  if (model.ok()) *response = DescribeTensors(**model);
  return End(context, model.status());
}

grpc::ServerUnaryReactor* KServeService::ModelConfig(grpc::CallbackServerContext* context,
                                                     const inference::ModelConfigRequest* request,
                                                     inference::ModelConfigResponse* response) {
  const absl::StatusOr<const ServedModel*> model =
      Named(*context, request->name(), request->version());
  if (model.ok()) *response->mutable_config() = DescribeConfig(**model);
  return End(context, model.status());
}

absl::StatusOr<InferRequest> KServeService::Read(
    const grpc::CallbackServerContext& context, const inference::ModelInferRequest& request) const {
  const absl::StatusOr<const ServedModel*> model =
      Named(context, request.model_name(), request.model_version());
  if (!model.ok()) return model.status();
  return ReadInfer(request);
}

grpc::ServerUnaryReactor* KServeService::ModelInfer(grpc::CallbackServerContext* context,
                                                    const inference::ModelInferRequest* request,
                                                    inference::ModelInferResponse* response) {
  const absl::StatusOr<InferRequest> read = Read(*context, *request);
  if (read.ok()) return new UnaryInfer({stub_.get(), context, request, response}, *read);
  desk_.metrics->CountRequest("ModelInfer", ToGrpc(read.status()).error_code());
  return End(context, read.status());
}

grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
KServeService::ModelStreamInfer(grpc::CallbackServerContext* context) {
  const absl::StatusOr<Caller> caller = desk_.access->Identify(*context);
  absl::Status status = caller.ok() ? gate_.Model().status() : caller.status();
  if (status.ok()) return new StreamInfer({&gate_, &streams_, desk_.metrics, stub_.get(), context});
  desk_.metrics->CountRequest("ModelStreamInfer", ToGrpc(status).error_code());
  return new RefusedStream(status);
}

}  // namespace catserve::kserve

#include "server/grpc_server.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"

namespace catserve {
namespace {

constexpr int kMetadataBytesMax = 16 << 10;
constexpr int kStreamsPerConnectionMax = 1024;
constexpr absl::Duration kKeepaliveTimeoutMax = absl::Seconds(20);
constexpr absl::Duration kClientPingsMin = absl::Seconds(10);  // closer ones count as abuse
constexpr absl::Duration kStopGrace = absl::Seconds(2);        // for unary calls under way

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

void SetLimits(const ServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(options.request_bytes_max);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMetadataBytesMax);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsPerConnectionMax);
  // A second server on the same port would silently take half of the connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                             Milliseconds(std::min(options.keepalive, kKeepaliveTimeoutMax)));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             Milliseconds(kClientPingsMin));
}

}  // namespace

GrpcServer::GrpcServer(const ServerOptions& options, Metrics& metrics)
    : metrics_(metrics),
      live_(2 * (static_cast<size_t>(options.slots) + options.queue_requests_max)),
      generation_({&gate_, &delivery_, &live_, &metrics, options.reader_lag_tokens_max}),
      models_(gate_, metrics),
      kserve_(gate_) {}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const ServerOptions& options,
                                                              Metrics& metrics) {
  std::unique_ptr<GrpcServer> server(new GrpcServer(options, metrics));
  if (absl::Status status = server->Listen(options); !status.ok()) return status;
  return server;
}

absl::Status GrpcServer::Listen(const ServerOptions& options) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetLimits(options, builder);
  builder.AddListeningPort(options.listen_address, grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(&generation_);
  builder.RegisterService(&models_);
  builder.RegisterService(&kserve_);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port_ == 0) {
    return absl::UnavailableError(absl::StrCat(
        "--listen_address=", options.listen_address,
        " cannot be listened on: is another server running there? Use another port, or port 0"));
  }
  kserve_.Connect(server_->InProcessChannel(grpc::ChannelArguments()));
  SetReady(false);
  server_->GetHealthCheckService()->SetServingStatus("liveness", true);
  sweeper_ = std::thread([this, stall = options.reader_stall] { Sweep(stall); });
  return absl::OkStatus();
}

GrpcServer::~GrpcServer() {
  stopping_.Notify();
  if (sweeper_.joinable()) sweeper_.join();
  if (server_ != nullptr) server_->Shutdown(absl::ToChronoTime(absl::Now()));
}

void GrpcServer::Sweep(absl::Duration reader_stall) {
  while (!stopping_.WaitForNotificationWithTimeout(reader_stall / 4)) {
    live_.CancelStalled(absl::Now() - reader_stall);
  }
}

void GrpcServer::SetReady(bool ready) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  for (const char* name :
       {"", "readiness", v1::Generation::service_full_name(), v1::Models::service_full_name()}) {
    health->SetServingStatus(name, ready);
  }
  metrics_.SetReady(ready);
}

void GrpcServer::Serve(std::unique_ptr<const ServedModel> model) {
  Engine* const engine = model->engine;
  metrics_.SetModel(*model);
  metrics_.WatchLoad([engine] { return engine->Load(); });
  gate_.Open(std::move(model));
  SetReady(true);
}

void GrpcServer::Drain(absl::Duration limit) {
  const absl::Time deadline = absl::Now() + limit;
  gate_.Drain();
  SetReady(false);
  if (const absl::StatusOr<const ServedModel*> model = gate_.Model(); model.ok()) {
    (*model)->engine->Drain(limit);
    live_.WaitUntilEmpty(std::max(deadline, absl::Now() + kStopGrace));
  }
  // What is left: readers that do not read, and watchers of health, which never end by themselves.
  metrics_.WatchLoad(nullptr);
  server_->Shutdown(absl::ToChronoTime(absl::Now() + absl::Milliseconds(100)));
}

}  // namespace catserve

#include "server/grpc_server.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"
#include "server/config/address.h"
#include "server/log.h"

namespace catserve {
namespace {

constexpr absl::Duration kStopGrace = absl::Seconds(2);  // for unary calls under way

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(absl::ToInt64Milliseconds(duration));
}

// Milliseconds as a channel argument; none for zero.
void SetTime(grpc::ServerBuilder& builder, const char* argument, absl::Duration duration) {
  if (duration > absl::ZeroDuration()) {
    builder.AddChannelArgument(argument, Milliseconds(duration));
  }
}

absl::Duration KeepaliveTimeout(const ServerOptions& options) {
  return std::min(options.keepalive, options.config.connections.keepalive_timeout);
}

void SetLimits(const ServerOptions& options, grpc::ServerBuilder& builder) {
  const ConnectionsConfig& limits = options.config.connections;
  builder.SetMaxReceiveMessageSize(options.request_bytes_max);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, limits.metadata_bytes_max);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, limits.streams_max);
  SetTime(builder, GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, limits.handshake);
  SetTime(builder, GRPC_ARG_MAX_CONNECTION_AGE_MS, limits.age_max);
  SetTime(builder, GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, limits.age_grace);
  SetTime(builder, GRPC_ARG_MAX_CONNECTION_IDLE_MS, limits.idle_max);
  SetTime(builder, GRPC_ARG_KEEPALIVE_TIME_MS, options.keepalive);
  SetTime(builder, GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KeepaliveTimeout(options));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  SetTime(builder, GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, limits.client_pings_min);
}

Access::Mode ModeOf(const ServerConfig& config) {
  if (!config.tokens_file.empty()) return Access::Mode::kTokens;
  return config.tls.client_ca_file.empty() ? Access::Mode::kOpen : Access::Mode::kCertificates;
}

}  // namespace

GrpcServer::GrpcServer(const ServerOptions& options, Metrics& metrics)
    : metrics_(metrics),
      access_(ModeOf(options.config)),
      live_(2 * (static_cast<size_t>(options.slots) + options.queue_requests_max)),
      generation_({&gate_,
                   &delivery_,
                   &live_,
                   {&access_, &metrics},
                   options.config.readers.lag_tokens_max}),
      models_(gate_, {&access_, &metrics}),
      kserve_(gate_, {&access_, &metrics}),
      reloader_(FilesToWatch(options.config)) {}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const ServerOptions& options,
                                                              Metrics& metrics) {
  std::unique_ptr<GrpcServer> server(new GrpcServer(options, metrics));
  if (auto status = server->reloader_.LoadAll(); !status.ok()) return status;
  if (auto status = server->Listen(options); !status.ok()) return status;
  if (auto status = server->StartServices(options); !status.ok()) return status;
  return server;
}

std::vector<WatchedFiles> GrpcServer::FilesToWatch(const ServerConfig& config) {
  std::vector<WatchedFiles> watched;
  if (const TlsConfig tls = config.tls; !tls.certificate_file.empty()) {
    std::vector<WatchedFiles::File> files = {{"tls.certificate_file", tls.certificate_file},
                                             {"tls.key_file", tls.key_file}};
    if (!tls.client_ca_file.empty()) files.push_back({"tls.client_ca_file", tls.client_ca_file});
    watched.push_back(
        {"certificates", files, kCertificateBytesMax,
         [this, tls](const auto& contents) { return TakeCertificates(tls, contents); }});
  }
  if (const std::string path = config.tokens_file; !path.empty()) {
    watched.push_back(
        {"tokens",
         {{"access.tokens_file", path}},
         kTokensBytesMax,
         [this, path](const auto& contents) { return TakeTokens(path, contents[0]); }});
  }
  return watched;
}

absl::Status GrpcServer::TakeCertificates(const TlsConfig& files,
                                          const std::vector<std::string>& contents) {
  Certificates certificates{contents[0], contents[1], contents.size() > 2 ? contents[2] : ""};
  if (auto status = CheckCertificates(certificates, files); !status.ok()) return status;
  if (tls_ == nullptr) {
    tls_ = std::make_shared<TlsCredentials>(std::move(certificates));
  } else {
    tls_->Set(std::move(certificates));
  }
  return absl::OkStatus();
}

absl::Status GrpcServer::TakeTokens(const std::string& path, const std::string& content) {
  const absl::StatusOr<std::vector<TokenEntry>> entries = ParseTokens(content, path);
  if (!entries.ok()) return entries.status();
  if (entries->empty()) LogWarning("no_tokens", {{"file", path}, {"effect", "nobody may call"}});
  access_.SetTokens(*entries);
  return absl::OkStatus();
}

absl::Status GrpcServer::Listen(const ServerOptions& options) {
  const absl::string_view text = options.listen_address;
  const absl::StatusOr<Address> address = ReadAddress(text);
  if (!address.ok()) return address.status();
  absl::StatusOr<std::unique_ptr<Listener>> listener = Listener::Bind(*address);
  if (!listener.ok()) {
    return absl::UnavailableError(absl::StrCat(
        "--listen_address=", text, " cannot be listened on (", listener.status().message(),
        "): is another server running there? Use another port, or port 0"));
  }
  listener_ = *std::move(listener);
  if (tls_ == nullptr && !listener_->local() && !options.config.plaintext_allowed) {
    return absl::InvalidArgumentError(
        absl::StrCat("--listen_address=", text,
                     " would serve plaintext beyond this machine: name "
                     "tls.certificate_file and tls.key_file in the file of --config, or write "
                     "plaintext_allowed: true there if something else protects the way"));
  }
  return absl::OkStatus();
}

absl::Status GrpcServer::StartServices(const ServerOptions& options) {
  if (const std::string& address = options.config.health_address; !address.empty()) {
    absl::StatusOr<std::unique_ptr<HealthPort>> health = HealthPort::Start(address);
    if (!health.ok()) return health.status();
    health_ = *std::move(health);
  }
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetLimits(options, builder);
  std::shared_ptr<grpc::ServerCredentials> credentials = tls_;
  if (credentials == nullptr) credentials = grpc::InsecureServerCredentials();
  auto acceptor = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials);
  builder.RegisterService(&generation_);
  builder.RegisterService(&models_);
  builder.RegisterService(&kserve_);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) {
    return absl::UnavailableError("gRPC does not start; GRPC_VERBOSITY=info says why");
  }
  kserve_.Connect(server_->InProcessChannel(grpc::ChannelArguments()));
  SetReady(false);
  SetHealth("liveness", true);
  listener_->Start(std::move(acceptor),
                   {options.config.connections.count_max, KeepaliveTimeout(options)});
  reloader_.Watch(options.config.reload);
  sweeper_ = std::thread([this, stall = options.config.readers.stall] { Sweep(stall); });
  return absl::OkStatus();
}

GrpcServer::~GrpcServer() {
  stopping_.Notify();
  if (sweeper_.joinable()) sweeper_.join();
  if (listener_ != nullptr) listener_->Stop();
  if (server_ != nullptr) server_->Shutdown(absl::ToChronoTime(absl::Now()));
}

void GrpcServer::Sweep(absl::Duration reader_stall) {
  while (!stopping_.WaitForNotificationWithTimeout(reader_stall / 4)) {
    live_.CancelStalled(absl::Now() - reader_stall);
    kserve_.CancelStalled(absl::Now() - reader_stall);
  }
}

void GrpcServer::SetHealth(const std::string& service, bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(service, serving);
  if (health_ != nullptr) health_->Set(service, serving);
}

void GrpcServer::SetReady(bool ready) {
  for (const char* name :
       {"", "readiness", v1::Generation::service_full_name(), v1::Models::service_full_name()}) {
    SetHealth(name, ready);
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
  listener_->Stop();
  server_->Shutdown(absl::ToChronoTime(absl::Now() + absl::Milliseconds(100)));
}

}  // namespace catserve

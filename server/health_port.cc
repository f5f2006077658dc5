#include "server/health_port.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/impl/server_builder_option.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"

namespace catserve {
namespace {

constexpr int32_t kConnectionsMax = 64;
constexpr int kMessageBytesMax = 4096;
constexpr int kMetadataBytesMax = 8192;
constexpr int kStreamsMax = 16;
constexpr int kHandshakeMs = 5000;
constexpr int kIdleMs = 60'000;

// gRPC gives its reflection service to every server of the process; not to this one.
class NoPlugins final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    plugins->clear();
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<HealthPort>> HealthPort::Start(const std::string& address) {
  const absl::StatusOr<Address> read = ReadAddress(address);
  if (!read.ok()) return read.status();
  std::unique_ptr<HealthPort> health(new HealthPort);
  absl::StatusOr<std::unique_ptr<Listener>> listener = Listener::Bind(*read);
  if (!listener.ok()) {
    return absl::UnavailableError(absl::StrCat(
        "health.address: ", address, " cannot be listened on: ", listener.status().message()));
  }
  health->listener_ = *std::move(listener);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.SetOption(std::make_unique<NoPlugins>());
  builder.SetMaxReceiveMessageSize(kMessageBytesMax);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMetadataBytesMax);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsMax);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kIdleMs);
  auto acceptor = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      grpc::InsecureServerCredentials());
  builder.RegisterCallbackGenericService(&health->others_);
  health->server_ = builder.BuildAndStart();
  if (health->server_ == nullptr) {
    return absl::UnavailableError(absl::StrCat("health.address: ", address, " cannot be served"));
  }
  health->listener_->Start(std::move(acceptor), {kConnectionsMax, absl::Milliseconds(kIdleMs)});
  return health;
}

HealthPort::~HealthPort() {
  if (listener_ != nullptr) listener_->Stop();
  if (server_ != nullptr) server_->Shutdown(absl::ToChronoTime(absl::Now()));
}

void HealthPort::Set(const std::string& service, bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(service, serving);
}

}  // namespace catserve

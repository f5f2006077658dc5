// A port for probes that have neither certificate nor token.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grpcpp/generic/async_generic_service.h"
#include "grpcpp/server.h"
#include "server/listener.h"

namespace catserve {

// Plaintext; answers grpc.health.v1 and refuses everything else.
class HealthPort {
 public:
  // Errors: INVALID_ARGUMENT or UNAVAILABLE naming the address.
  static absl::StatusOr<std::unique_ptr<HealthPort>> Start(const std::string& address);
  ~HealthPort();

  int port() const { return listener_->port(); }
  void Set(const std::string& service, bool serving);

 private:
  HealthPort() = default;

  std::unique_ptr<Listener> listener_;
  grpc::CallbackGenericService others_;  // answers every other method with UNIMPLEMENTED
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace catserve

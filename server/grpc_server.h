// The listening server: services, health, reflection, TLS, limits, shutdown.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "server/access.h"
#include "server/credentials.h"
#include "server/delivery.h"
#include "server/flags.h"
#include "server/generation_service.h"
#include "server/health_port.h"
#include "server/kserve/kserve_service.h"
#include "server/listener.h"
#include "server/live_requests.h"
#include "server/metrics.h"
#include "server/model_service.h"
#include "server/reloader.h"
#include "server/served_model.h"

namespace catserve {

// Listens from Start, refuses work until Serve, and never serves again after Drain. Health names:
// "liveness" is SERVING while the process answers; "readiness", "" and the two services are SERVING
// while new requests are accepted. A call whose reader takes nothing for a minute is cancelled.
class GrpcServer {
 public:
  // REQUIRES: metrics outlives the server. Errors: UNAVAILABLE naming an address that cannot be
  // listened on, INVALID_ARGUMENT naming a file that is no good or an address that would serve
  // plaintext beyond this machine; both with the remedy.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const ServerOptions& options,
                                                           Metrics& metrics);
  ~GrpcServer();  // ends every call

  int port() const { return listener_->port(); }
  int health_port() const { return health_ == nullptr ? 0 : health_->port(); }  // 0: none
  int32_t connections() const { return listener_->connections(); }

  // Looks at the files of certificates and tokens now. Any thread; does not wait.
  void Reload() { reloader_.LookNow(); }

  // Opens the house. REQUIRES: model->engine outlives the server; called once.
  void Serve(std::unique_ptr<const ServedModel> model);

  bool loading() const { return gate_.state() == Gate::State::kLoading; }

  // Refuses new work, waits until running requests have ended and their clients have read it, then
  // ends every call. After `limit` it aborts the rest.
  void Drain(absl::Duration limit);

  // Tells every probe that nothing is served any more, just before the process ends. Any thread.
  void TellLost() { SetReady(false); }

 private:
  GrpcServer(const ServerOptions& options, Metrics& metrics);
  std::vector<WatchedFiles> FilesToWatch(const ServerConfig& config);
  absl::Status TakeCertificates(const TlsConfig& files, const std::vector<std::string>& contents);
  absl::Status TakeTokens(const std::string& path, const std::string& content);
  absl::Status Listen(const ServerOptions& options);
  absl::Status StartServices(const ServerOptions& options);
  void SetHealth(const std::string& service, bool serving);
  void SetReady(bool ready);
  void Sweep(absl::Duration reader_stall);

  Metrics& metrics_;
  Access access_;
  std::shared_ptr<TlsCredentials> tls_;  // null: plaintext
  Gate gate_;
  Delivery delivery_;
  LiveRequests live_;
  GenerationService generation_;
  ModelService models_;
  kserve::KServeService kserve_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<HealthPort> health_;    // null: none
  std::unique_ptr<grpc::Server> server_;  // stops before what it uses
  Reloader reloader_;
  absl::Notification stopping_;
  std::thread sweeper_;
};

}  // namespace catserve

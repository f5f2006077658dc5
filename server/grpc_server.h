// The listening server: services, health, reflection, limits, shutdown.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "server/delivery.h"
#include "server/flags.h"
#include "server/generation_service.h"
#include "server/kserve/kserve_service.h"
#include "server/live_requests.h"
#include "server/metrics.h"
#include "server/model_service.h"
#include "server/served_model.h"

namespace catserve {

// Listens from Start, refuses work until Serve, and never serves again after Drain. Health names:
// "liveness" is SERVING while the process answers; "readiness", "" and the two services are SERVING
// while new requests are accepted. A call whose reader takes nothing for a minute is cancelled.
class GrpcServer {
 public:
  // REQUIRES: metrics outlives the server. Errors: UNAVAILABLE naming the address and the remedy.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const ServerOptions& options,
                                                           Metrics& metrics);
  ~GrpcServer();  // ends every call

  int port() const { return port_; }

  // Opens the house. REQUIRES: model->engine outlives the server; called once.
  void Serve(std::unique_ptr<const ServedModel> model);

  bool loading() const { return gate_.state() == Gate::State::kLoading; }

  // Refuses new work, waits until running requests have ended and their clients have read it, then
  // ends every call. After `limit` it aborts the rest.
  void Drain(absl::Duration limit);

 private:
  GrpcServer(const ServerOptions& options, Metrics& metrics);
  absl::Status Listen(const ServerOptions& options);
  void SetReady(bool ready);
  void Sweep(absl::Duration reader_stall);

  Metrics& metrics_;
  Gate gate_;
  Delivery delivery_;
  LiveRequests live_;
  GenerationService generation_;
  ModelService models_;
  kserve::KServeService kserve_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;  // stops before what it uses
  absl::Notification stopping_;
  std::thread sweeper_;
};

}  // namespace catserve

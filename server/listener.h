// Accepts connections for gRPC, which has no limit to their number.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/server_builder.h"
#include "server/config/address.h"

struct addrinfo;

namespace catserve {

// At most `count_max` connections live at once; one more is closed as soon as it comes, and the log
// tells their number at most once a second. A connection counts from accept until both of its
// directions are shut down: a copy of its descriptor, which nobody reads, hears of that.
// All connections reach gRPC from one thread.
class Listener {
 public:
  struct Options {
    int32_t count_max = 0;
    absl::Duration lost_after;  // data that nobody acknowledges for this long ends a connection
  };

  // Listens on every address of the host, all with one port. Errors: UNAVAILABLE, why not.
  static absl::StatusOr<std::unique_ptr<Listener>> Bind(const Address& address);
  ~Listener();

  int port() const { return port_; }
  bool local() const { return local_; }  // reached from this machine only

  // Once. REQUIRES: `acceptor`'s server has started.
  void Start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor,
             const Options& options);

  // No connection is accepted from now on; those that are stay. Before the server's shutdown.
  void Stop();

  int32_t connections() const { return connections_.load(std::memory_order_relaxed); }

 private:
  Listener() = default;
  absl::Status Open(const std::vector<addrinfo*>& addresses);
  void Run();
  void AcceptFrom(int listening);
  bool Take(int listening, int connection);
  void Forget(int copy);
  void RefuseForWantOfDescriptors(int listening);
  int TellRefused();  // milliseconds until there is more to tell; -1: nothing

  std::vector<int> listening_;
  int port_ = 0;
  bool local_ = true;
  Options options_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  int stop_ = -1;  // an event descriptor
  std::thread thread_;
  std::atomic<int32_t> connections_ = 0;

  // The thread's own.
  int events_ = -1;
  int spare_ = -1;  // given up to refuse a connection where there is no other descriptor
  std::set<int> copies_;
  int64_t refused_ = 0;  // not told yet
  absl::Time told_ = absl::InfinitePast();
};

}  // namespace catserve

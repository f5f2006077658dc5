#include "server/listener.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/log.h"

namespace catserve {
namespace {

constexpr int kEventsAtOnce = 64;
constexpr absl::Duration kTellEvery = absl::Seconds(1);

bool IsLocal(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(address);
    return ntohl(in.sin_addr.s_addr) >> 24 == 127;
  }
  return address.sa_family == AF_INET6 &&
         IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

void SetPort(sockaddr& address, int port) {
  const auto network = htons(static_cast<uint16_t>(port));
  if (address.sa_family == AF_INET) reinterpret_cast<sockaddr_in&>(address).sin_port = network;
  if (address.sa_family == AF_INET6) reinterpret_cast<sockaddr_in6&>(address).sin6_port = network;
}

int PortOf(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

void SetOption(int socket, int level, int name, int value) {
  setsockopt(socket, level, name, &value, sizeof(value));
}

// A socket that listens, or -1 with errno set.
int ListenOn(const addrinfo& info, const sockaddr& address) {
  const int socket = ::socket(info.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket < 0) return -1;
  SetOption(socket, SOL_SOCKET, SO_REUSEADDR, 1);  // not REUSEPORT: a second server must fail
  if (info.ai_family == AF_INET6) SetOption(socket, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  if (bind(socket, &address, info.ai_addrlen) == 0 && listen(socket, SOMAXCONN) == 0) return socket;
  const int error = errno;
  close(socket);
  errno = error;
  return -1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> Listener::Bind(const Address& address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int error =
      getaddrinfo(address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &list);
  if (error != 0) return absl::UnavailableError(gai_strerror(error));
  std::vector<addrinfo*> addresses;
  for (addrinfo* info = list; info != nullptr; info = info->ai_next) addresses.push_back(info);
  std::unique_ptr<Listener> listener(new Listener);
  listener->port_ = address.port;
  const absl::Status status = listener->Open(addresses);
  freeaddrinfo(list);
  if (!status.ok()) return status;
  return listener;
}

absl::Status Listener::Open(const std::vector<addrinfo*>& addresses) {
  int error = 0;
  for (const addrinfo* info : addresses) {
    SetPort(*info->ai_addr, port_);  // the first one's, if the system chose it
    const int socket = ListenOn(*info, *info->ai_addr);
    if (socket < 0) {  // a name may have addresses that this machine does not
      error = errno;
      if (error == EADDRINUSE) break;
      continue;
    }
    local_ = local_ && IsLocal(*info->ai_addr);
    listening_.push_back(socket);
    port_ = PortOf(socket);
  }
  if (listening_.empty() || error == EADDRINUSE) return absl::UnavailableError(strerror(error));
  return absl::OkStatus();
}

Listener::~Listener() {
  Stop();
  for (const int copy : copies_) close(copy);
  for (const int descriptor : {events_, spare_, stop_}) {
    if (descriptor >= 0) close(descriptor);
  }
}

void Listener::Start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor,
                     const Options& options) {
  acceptor_ = std::move(acceptor);
  options_ = options;
  stop_ = eventfd(0, EFD_CLOEXEC);
  events_ = epoll_create1(EPOLL_CLOEXEC);
  spare_ = open("/dev/null", O_RDONLY | O_CLOEXEC);
  for (const int socket : listening_) {
    epoll_event event{EPOLLIN, {.fd = socket}};
    epoll_ctl(events_, EPOLL_CTL_ADD, socket, &event);
  }
  epoll_event event{EPOLLIN, {.fd = stop_}};
  epoll_ctl(events_, EPOLL_CTL_ADD, stop_, &event);
  thread_ = std::thread([this] { Run(); });
}

void Listener::Stop() {
  if (thread_.joinable()) {
    eventfd_write(stop_, 1);
    thread_.join();
  }
  for (const int socket : listening_) close(socket);
  listening_.clear();
}

void Listener::Run() {
  std::array<epoll_event, kEventsAtOnce> events;
  for (;;) {
    const int count = epoll_wait(events_, events.data(), kEventsAtOnce, TellRefused());
    for (int i = 0; i < count; ++i) {
      const int descriptor = events[i].data.fd;
      if (descriptor == stop_) return;
      if (std::find(listening_.begin(), listening_.end(), descriptor) != listening_.end()) {
        AcceptFrom(descriptor);
      } else {
        Forget(descriptor);
      }
    }
  }
}

void Listener::AcceptFrom(int listening) {
  for (int i = 0; i < kEventsAtOnce; ++i) {  // then look who has gone
    const int connection = accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (connection < 0) {
      if (errno == EMFILE || errno == ENFILE) RefuseForWantOfDescriptors(listening);
      return;
    }
    if (Take(listening, connection)) continue;
    ++refused_;
    close(connection);
  }
}

bool Listener::Take(int listening, int connection) {
  if (static_cast<int32_t>(copies_.size()) >= options_.count_max) return false;
  const int copy = fcntl(connection, F_DUPFD_CLOEXEC, 0);
  epoll_event ends_only{0, {.fd = copy}};  // EPOLLHUP and EPOLLERR need not be asked for
  if (copy < 0 || epoll_ctl(events_, EPOLL_CTL_ADD, copy, &ends_only) != 0) {
    if (copy >= 0) close(copy);
    return false;
  }
  copies_.insert(copy);
  connections_.store(static_cast<int32_t>(copies_.size()), std::memory_order_relaxed);
  // What gRPC's own listener sets.
  SetOption(connection, IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(connection, IPPROTO_TCP, TCP_USER_TIMEOUT,
            static_cast<int>(absl::ToInt64Milliseconds(options_.lost_after)));
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
  parameters.listener_fd = listening;
  parameters.fd = connection;
  acceptor_->HandleNewConnection(&parameters);
  return true;
}

void Listener::Forget(int copy) {
  if (copies_.erase(copy) == 0) return;
  epoll_ctl(events_, EPOLL_CTL_DEL, copy,
            nullptr);  // closing alone does not, while gRPC has its own
  close(copy);
  connections_.store(static_cast<int32_t>(copies_.size()), std::memory_order_relaxed);
}

void Listener::RefuseForWantOfDescriptors(int listening) {
  if (spare_ >= 0) close(spare_);
  const int connection = accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (connection >= 0) {
    ++refused_;
    close(connection);
  }
  spare_ = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

int Listener::TellRefused() {
  if (refused_ == 0) return -1;
  const absl::Time now = absl::Now();
  const absl::Duration wait = told_ + kTellEvery - now;
  if (wait > absl::ZeroDuration()) return static_cast<int>(absl::ToInt64Milliseconds(wait)) + 1;
  LogWarning("connections_refused", {{"count", refused_},
                                     {"live", copies_.size()},
                                     {"connections_count_max", options_.count_max}});
  refused_ = 0;
  told_ = now;
  return -1;
}

}  // namespace catserve

#include "tests/server/proxy.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <stdexcept>

#include "absl/strings/str_cat.h"

namespace catserve::testing {
namespace {

sockaddr_in Local(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

Proxy::Proxy(const std::string& upstream)
    : upstream_port_(std::stoi(upstream.substr(upstream.rfind(':') + 1))) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = Local(0);
  socklen_t size = sizeof(address);
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener_, raw, size) != 0 || ::listen(listener_, 8) != 0 ||
      ::getsockname(listener_, raw, &size) != 0) {
    throw std::runtime_error("the proxy cannot listen");
  }
  port_ = ntohs(address.sin_port);
  accepting_ = std::thread([this] { Accept(); });
}

Proxy::~Proxy() {
  Cut();
  accepting_.join();
  for (std::thread& copy : copies_) copy.join();
  absl::MutexLock lock(&mutex_);
  for (const int fd : sockets_) ::close(fd);
  ::close(listener_);
}

std::string Proxy::address() const { return absl::StrCat("127.0.0.1:", port_); }

void Proxy::Cut() {
  absl::MutexLock lock(&mutex_);
  cut_ = true;
  ::shutdown(listener_, SHUT_RDWR);  // accept returns
  for (const int fd : sockets_) ::shutdown(fd, SHUT_RDWR);
}

void Proxy::Accept() {
  for (int client; (client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
    const int server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = Local(upstream_port_);
    absl::MutexLock lock(&mutex_);
    sockets_.insert(sockets_.end(), {client, server});
    if (cut_ || ::connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof(address))) {
      ::shutdown(client, SHUT_RDWR);
      continue;
    }
    copies_.emplace_back([client, server] { Copy(client, server); });
    copies_.emplace_back([client, server] { Copy(server, client); });
  }
}

void Proxy::Copy(int from, int to) {
  char buffer[4096];
  for (ssize_t count; (count = ::recv(from, buffer, sizeof(buffer), 0)) > 0;) {
    if (::send(to, buffer, static_cast<size_t>(count), MSG_NOSIGNAL) != count) break;
  }
  ::shutdown(to, SHUT_RDWR);
}

}  // namespace catserve::testing

#include "tests/faults/raw_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <stdexcept>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace catserve::testing {
namespace {

std::string BigEndian(uint64_t value, int bytes) {
  std::string text;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    text.push_back(static_cast<char>(value >> shift & 0xff));
  }
  return text;
}

// HPACK: a literal header that nobody has to remember. Sizes below 127.
std::string Header(const std::string& name, const std::string& value) {
  return absl::StrCat(std::string(1, '\0'), BigEndian(name.size(), 1), name,
                      BigEndian(value.size(), 1), value);
}

}  // namespace

std::string Frame(FrameType type, uint8_t flags, uint32_t stream, const std::string& payload) {
  return absl::StrCat(BigEndian(payload.size(), 3), BigEndian(static_cast<uint8_t>(type), 1),
                      BigEndian(flags, 1), BigEndian(stream, 4), payload);
}

std::string Hello() {
  return absl::StrCat("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Frame(FrameType::kSettings, 0, 0, ""));
}

std::string CallHeaders(uint32_t stream, const std::string& method) {
  return Frame(FrameType::kHeaders, kEndHeaders, stream,
               absl::StrCat(Header(":method", "POST"), Header(":scheme", "http"),
                            Header(":path", method), Header(":authority", "localhost"),
                            Header("te", "trailers"), Header("content-type", "application/grpc")));
}

std::string CallMessage(uint32_t stream, const std::string& message) {
  return Frame(FrameType::kData, kEndStream, stream,
               absl::StrCat(std::string(1, '\0'), BigEndian(message.size(), 4), message));
}

RawClient::RawClient(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  sockaddr_in to{};
  to.sin_family = AF_INET;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr) != 1) {
    throw std::runtime_error("not an address: " + address);
  }
  to.sin_port = htons(static_cast<uint16_t>(port));
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0) {
    throw std::runtime_error("nobody listens at " + address);
  }
}

bool RawClient::Send(const std::string& bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t count = ::send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count <= 0) return false;
    sent += static_cast<size_t>(count);
  }
  return true;
}

bool RawClient::ReadExactly(size_t count, std::string& bytes) {
  bytes.resize(count);
  for (size_t have = 0; have < count;) {
    const ssize_t got = ::read(fd_, bytes.data() + have, count - have);
    if (got <= 0) return false;
    have += static_cast<size_t>(got);
  }
  return true;
}

bool RawClient::Await(FrameType type) {
  std::string head, payload;
  while (ReadExactly(9, head)) {
    size_t size = 0;
    for (int i = 0; i < 3; ++i) size = size << 8 | static_cast<uint8_t>(head[i]);
    if (!ReadExactly(size, payload)) return false;
    if (static_cast<uint8_t>(head[3]) == static_cast<uint8_t>(type)) return true;
  }
  return false;
}

void RawClient::Leave() {
  ::shutdown(fd_, SHUT_WR);
  char buffer[4096];
  while (::read(fd_, buffer, sizeof(buffer)) > 0) continue;
  Close();
}

void RawClient::Close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

void RawClient::Reset() {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  Close();
}

}  // namespace catserve::testing

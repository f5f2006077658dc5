// HTTP/2 by hand: a client that sends whatever a test likes, and goes away however it likes.
#pragma once

#include <cstdint>
#include <string>

namespace catserve::testing {

enum class FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kPriority = 2,
  kRstStream = 3,
  kSettings = 4,
  kPushPromise = 5,
  kPing = 6,
  kGoAway = 7,
  kWindowUpdate = 8,
  kContinuation = 9,
};
inline constexpr uint8_t kEndStream = 1;
inline constexpr uint8_t kEndHeaders = 4;

std::string Frame(FrameType type, uint8_t flags, uint32_t stream, const std::string& payload);

// The connection preface and an empty SETTINGS.
std::string Hello();

// HEADERS that open a gRPC call of `method` ("/package.Service/Method").
std::string CallHeaders(uint32_t stream, const std::string& method);

// DATA with one gRPC message, and the end of what the client says.
std::string CallMessage(uint32_t stream, const std::string& message);

// A connection to host:port. Throws if nobody listens.
class RawClient {
 public:
  explicit RawClient(const std::string& address);
  ~RawClient() { Close(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  // False if the server has closed the connection.
  bool Send(const std::string& bytes);

  // Reads until a frame of this type has come; false if the connection ended first.
  bool Await(FrameType type);

  // Says that nothing more comes and reads until the server closes, too.
  void Leave();

  // As the kernel closes the sockets of a process that is killed: with FIN, or with RST where it
  // had not read everything.
  void Close();
  void Reset();

 private:
  bool ReadExactly(size_t count, std::string& bytes);

  int fd_ = -1;
};

}  // namespace catserve::testing

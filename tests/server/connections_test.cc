// Limits that hold before anybody is known: connections, silence, metadata; and the health port.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/generic/generic_stub.h"
#include "tests/server/certificates.h"
#include "tests/server/scripted_server.h"

namespace catserve::testing {
namespace {

using grpc::health::v1::HealthCheckResponse;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// A connection that says nothing.
class Silent {
 public:
  explicit Silent(int port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
  }
  ~Silent() { Close(); }
  Silent(Silent&& other) noexcept : socket_(std::exchange(other.socket_, -1)) {}

  void Close() {
    if (socket_ >= 0) ::close(std::exchange(socket_, -1));
  }
  // Waits until the server has closed it; what it may have said before is read.
  void AwaitClosed() {
    char buffer[256];
    while (::recv(socket_, buffer, sizeof(buffer), 0) > 0) continue;
  }

 private:
  int socket_;
};

// Opens a call of reflection and ends it at once.
grpc::Status AskReflection(Stubs& stubs) {
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub(stubs.channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  const auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
  };
  call->StartCall(nullptr);
  next();
  call->WritesDone(nullptr);
  next();
  grpc::Status status;
  call->Finish(&status, nullptr);
  next();
  return status;
}

Stubs OwnConnection(const std::string& address) { return Stubs(address, 1 << 16); }

TEST(Connections, AFloodBeyondTheLimitHarmsOnlyItself) {
  ScriptedServer::Options options;
  options.config.connections.count_max = 4;
  options.config.connections.handshake = absl::Seconds(300);
  ScriptedServer house(options);
  house.executor().Hold();
  GenerateCall stream(house.stubs(), GreedyRequest({1, 2}, 4, 100));
  house.executor().Allow(2);
  ASSERT_TRUE(stream.ReadTokens());

  std::vector<Silent> few;
  for (int i = 0; i < 3; ++i) few.emplace_back(house.server().port());
  while (house.server().connections() < 4) continue;
  for (int i = 0; i < 200; ++i) {
    Silent beyond(house.server().port());
    beyond.AwaitClosed();
    if (i % 20 != 0) continue;
    house.executor().Allow(1);
    ASSERT_TRUE(stream.ReadTokens()) << i;
  }
  EXPECT_EQ(house.server().connections(), 4);
  {
    Stubs refused = OwnConnection(house.address());
    EXPECT_EQ(CallMethod(refused, "GetModel").error_code(), grpc::StatusCode::UNAVAILABLE);
  }

  few.pop_back();  // room for one
  while (house.server().connections() > 3) continue;
  Stubs next = OwnConnection(house.address());
  EXPECT_TRUE(CallMethod(next, "GetModel").ok());
  house.executor().Release();
  const Generated got = stream.Finish();
  EXPECT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_THAT(got.ids(), SizeIs(100));
}

TEST(Connections, EveryEndIsSeen) {
  ScriptedServer house;
  ASSERT_TRUE(CallMethod(house.stubs(), "GetModel").ok());
  EXPECT_EQ(house.server().connections(), 1);
  for (int i = 0; i < 50; ++i) {
    Stubs other = OwnConnection(house.address());
    ASSERT_TRUE(CallMethod(other, "GetModel").ok());
    Silent silent(house.server().port());
  }
  while (house.server().connections() > 1) continue;
}

TEST(Connections, WhoSaysNothingIsClosed) {
  ScriptedServer::Options options;
  options.config.connections.handshake = absl::Milliseconds(100);
  ScriptedServer house(options);
  Silent silent(house.server().port());
  silent.AwaitClosed();
  while (house.server().connections() > 0) continue;
}

TEST(Connections, WhoSaysNothingIsClosedUnderTlsToo) {
  const Authority authority("ours");
  const Issued issued = authority.Issue("server");
  const TempDirectory directory;
  directory.Write("crt", issued.certificate);
  directory.Write("key", issued.key);
  ScriptedServer::Options options;
  options.config.tls = {directory.File("crt"), directory.File("key"), ""};
  options.config.connections.handshake = absl::Milliseconds(100);
  ScriptedServer house(options);
  Silent silent(house.server().port());
  silent.AwaitClosed();
  while (house.server().connections() > 0) continue;
}

TEST(Connections, IdleAndOldOnesGo) {
  for (const bool old : {false, true}) {
    ScriptedServer::Options options;
    ConnectionsConfig& limits = options.config.connections;
    (old ? limits.age_max : limits.idle_max) = absl::Seconds(1);
    ScriptedServer house(options);
    Stubs other = OwnConnection(house.address());
    ASSERT_TRUE(CallMethod(other, "GetModel").ok());
    while (house.server().connections() > 0) continue;
    EXPECT_TRUE(CallMethod(other, "GetModel").ok()) << "clients connect again by themselves";
  }
}

// (gRPC may close the connection of who sends too much, so it is nobody else's here.)
TEST(Connections, TooMuchMetadataIsRefusedAndHarmsNobodyElse) {
  ScriptedServer house;
  house.executor().Hold();
  GenerateCall stream(house.stubs(), GreedyRequest({1, 2}, 4, 30));
  for (int i = 0; i < 20; ++i) {
    Stubs large = OwnConnection(house.address());
    grpc::ClientContext context;
    context.AddMetadata("x-large", std::string(40'000, 'x'));
    v1::GetModelResponse model;
    const grpc::Status status = large.models->GetModel(&context, {}, &model);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
    house.executor().Allow(1);
    ASSERT_TRUE(stream.Read());
  }
  house.executor().Release();
  EXPECT_THAT(stream.Finish().ids(), SizeIs(30));
}

TEST(HealthPort, AnswersProbesInPlaintextUnderMutualTlsAndNothingElse) {
  const Authority authority("ours");
  const Issued issued = authority.Issue("server");
  const TempDirectory directory;
  directory.Write("crt", issued.certificate);
  directory.Write("key", issued.key);
  directory.Write("ca", authority.pem());
  ScriptedServer::Options options;
  options.config.tls = {directory.File("crt"), directory.File("key"), directory.File("ca")};
  options.config.health_address = "127.0.0.1:0";
  options.serve = false;
  ScriptedServer house(options);
  Stubs probe(absl::StrCat("127.0.0.1:", house.server().health_port()));
  EXPECT_EQ(CheckHealth(probe, "liveness"), HealthCheckResponse::SERVING);
  EXPECT_EQ(CheckHealth(probe, "readiness"), HealthCheckResponse::NOT_SERVING);
  house.Serve();
  EXPECT_EQ(CheckHealth(probe, "readiness"), HealthCheckResponse::SERVING);
  for (const char* method : kMethods) {
    EXPECT_EQ(CallMethod(probe, method).error_code(), grpc::StatusCode::UNIMPLEMENTED) << method;
  }
  EXPECT_EQ(AskReflection(probe).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_TRUE(AskReflection(ScriptedServer().stubs()).ok()) << "elsewhere it is there";
  house.server().Drain(absl::ZeroDuration());
  EXPECT_EQ(CheckHealth(probe, "readiness"), HealthCheckResponse::NOT_SERVING);
}

TEST(HealthPort, ATakenAddressIsNamed) {
  ScriptedServer house;
  ServerOptions options;
  options.listen_address = "127.0.0.1:0";
  options.keepalive = absl::Seconds(30);
  options.config.health_address = house.address();
  const auto metrics = Metrics::Create("");
  const absl::Status status = GrpcServer::Start(options, **metrics).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("health.address: " + house.address()));
}

}  // namespace
}  // namespace catserve::testing

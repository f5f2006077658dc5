// From loading to the last stream's end: health, refusals, drain.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/server/scripted_server.h"

namespace catserve::testing {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using ::testing::HasSubstr;

constexpr const char* kReadyNames[] = {"", "readiness", "catserve.v1.Generation",
                                       "catserve.v1.Models"};

TEST(Drain, WhileLoadingTheServerAnswersThatItLoads) {
  ScriptedServer house(ScriptedServer::Options{.serve = false});
  for (const char* name : kReadyNames) {
    EXPECT_EQ(CheckHealth(house.stubs(), name), HealthCheckResponse::NOT_SERVING) << name;
  }
  EXPECT_EQ(CheckHealth(house.stubs(), "liveness"), HealthCheckResponse::SERVING);
  const grpc::Status status = Generate(house.stubs(), GreedyRequest({1}, 4, 1)).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("loading"));
  house.Serve();
  for (const char* name : kReadyNames) {
    EXPECT_EQ(CheckHealth(house.stubs(), name), HealthCheckResponse::SERVING) << name;
  }
  EXPECT_EQ(CheckHealth(house.stubs(), "unknown"), HealthCheckResponse::SERVICE_UNKNOWN);
  EXPECT_TRUE(Generate(house.stubs(), GreedyRequest({1}, 4, 1)).status.ok());
}

// Watches "readiness"; each call of Next waits for the next change.
class Watcher {
 public:
  explicit Watcher(Stubs& stubs) {
    HealthCheckRequest request;
    request.set_service("readiness");
    reader_ = stubs.health->Watch(&context_, request);
  }
  ~Watcher() { context_.TryCancel(); }
  HealthCheckResponse::ServingStatus Next() {
    HealthCheckResponse response;
    return reader_->Read(&response) ? response.status() : HealthCheckResponse::UNKNOWN;
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<HealthCheckResponse>> reader_;
};

// What follows is the end of the process (kernels/backend_lost.h): who balances load knows by then.
TEST(Drain, ALostDeviceIsTakenOutOfRotationAndNotRestartedByItsLivenessProbe) {
  ScriptedServer house;
  Watcher watcher(house.stubs());
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::SERVING);
  house.server().TellLost();
  for (const char* name : kReadyNames) {
    ASSERT_EQ(CheckHealth(house.stubs(), name), HealthCheckResponse::NOT_SERVING) << name;
  }
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(CheckHealth(house.stubs(), "liveness"), HealthCheckResponse::SERVING);
}

TEST(Drain, RunningStreamsEndAndNewOnesAreRefused) {
  ScriptedServer house;
  house.executor().Hold();
  GenerateCall running(house.stubs(), GreedyRequest({1, 2}, 4, 30));
  house.executor().Allow(3);
  ASSERT_TRUE(running.ReadTokens());
  Watcher watcher(house.stubs());
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::SERVING);

  std::thread drain([&] { house.server().Drain(absl::Seconds(100)); });
  EXPECT_EQ(watcher.Next(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(CheckHealth(house.stubs(), "liveness"), HealthCheckResponse::SERVING);
  const grpc::Status refused = Generate(house.stubs(), GreedyRequest({1}, 4, 1)).status;
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(refused.error_message(), HasSubstr("draining"));
  EXPECT_TRUE(GetLoad(house.stubs()).draining());

  house.executor().Release();
  const Generated got = running.Finish();
  EXPECT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.ids().size(), 30);
  EXPECT_EQ(got.finished().reason(), v1::FINISH_REASON_LENGTH);
  drain.join();
}

TEST(Drain, PastTheLimitStreamsEndAborted) {
  ScriptedServer house;
  house.executor().Hold();
  GenerateCall running(house.stubs(), GreedyRequest({1, 2}, 4, 200));
  house.executor().Allow(3);
  ASSERT_TRUE(running.ReadTokens());
  std::thread drain([&] { house.server().Drain(absl::ZeroDuration()); });
  while (!GetLoad(house.stubs()).draining()) continue;
  EXPECT_LT(house.StepsUntilIdle(), 150);
  const Generated got = running.Finish();
  drain.join();
  EXPECT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.finished().reason(), v1::FINISH_REASON_ABORTED);
  EXPECT_LT(got.ids().size(), 200);
}

}  // namespace
}  // namespace catserve::testing

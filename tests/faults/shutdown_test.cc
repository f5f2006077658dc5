// SIGTERM under full load: every call ends with exactly one status, none is cut before the limit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/server/calls.h"
#include "tests/server/process.h"

namespace catserve::testing {
namespace {

using ::testing::HasSubstr;

const std::string kModel = "tests/data/golden/adaptive-tiny";
constexpr int kCalls = 160;
constexpr int kTokens = 200;

struct Ends {
  int whole = 0, aborted = 0, refused = 0, other = 0;
};

// 32 streams run and 128 wait when the signal comes.
Ends StopUnderFullLoad(const std::string& drain_seconds) {
  ServedProcess server(kModel, {"--slots=32", "--drain_seconds=" + drain_seconds});
  EXPECT_TRUE(server.WaitUntilServing());
  Stubs stubs(server.Address());
  std::vector<std::unique_ptr<GenerateCall>> calls;
  for (int i = 0; i < kCalls; ++i) {
    calls.push_back(std::make_unique<GenerateCall>(stubs, GreedyRequest({5, 6, i}, 8, kTokens)));
  }
  AwaitLoad(stubs, [](const v1::GetLoadResponse& load) {
    return load.running_requests() >= 30 && load.waiting_requests() >= 30;
  });
  server.Signal(SIGTERM);
  Ends ends;
  for (const auto& call : calls) {
    const Generated got = call->Finish();
    const std::string told =
        absl::StrCat(got.status.error_code(), ": ", got.status.error_message());
    if (got.status.error_code() == grpc::StatusCode::UNAVAILABLE) {  // it came after the signal
      EXPECT_TRUE(got.events.empty()) << told;
      if (drain_seconds != "0") {  // else gRPC's own words may come first
        EXPECT_THAT(got.status.error_message(), HasSubstr("draining"));
      }
      ++ends.refused;
    } else if (!got.status.ok() || !got.events.back().has_finished()) {
      ADD_FAILURE() << told;
      ++ends.other;
    } else if (got.finished().reason() == v1::FINISH_REASON_LENGTH) {
      EXPECT_EQ(got.ids().size(), kTokens);
      ++ends.whole;
    } else {
      EXPECT_EQ(got.finished().reason(), v1::FINISH_REASON_ABORTED);
      EXPECT_EQ(got.finished().usage().generated_tokens(), got.ids().size());
      ++ends.aborted;
    }
  }
  EXPECT_EQ(server.Wait(), 0);
  std::printf(
      "drain limit %s s: of %d calls %d came to their end, %d ended aborted, %d were refused "
      "as draining, %d otherwise\n",
      drain_seconds.c_str(), kCalls, ends.whole, ends.aborted, ends.refused, ends.other);
  return ends;
}

TEST(Shutdown, UnderFullLoadNoStreamIsCutBeforeTheLimit) {
  const Ends ends = StopUnderFullLoad("600");
  EXPECT_EQ(ends.aborted + ends.other, 0);
  EXPECT_GE(ends.whole, 60);
}

TEST(Shutdown, UnderFullLoadWhatIsLeftAtTheLimitEndsWithOneStatus) {
  const Ends ends = StopUnderFullLoad("0");
  EXPECT_EQ(ends.other, 0);
  EXPECT_GT(ends.aborted, 0);
}

TEST(Shutdown, ASecondSignalEndsAtOnceThoughAStreamIsHeldUpByItsReader) {
  ServedProcess server(kModel, {"--drain_seconds=1000"});
  ASSERT_TRUE(server.WaitUntilServing());
  Stubs narrow(server.Address(), /*buffer_bytes=*/4096);
  v1::GenerateRequest request = GreedyRequest({1, 2, 3}, 8, 240);
  request.set_logprobs(20);  // more than the transport takes in for a stream that nobody reads
  GenerateCall stuck(narrow, request);
  ASSERT_TRUE(stuck.Read());
  server.Signal(SIGTERM);
  ASSERT_FALSE(server.WaitForError("event=signal").empty());
  while (CheckHealth(narrow, "readiness") != grpc::health::v1::HealthCheckResponse::NOT_SERVING) {
    continue;
  }
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 128 + SIGTERM);
  EXPECT_EQ(stuck.Finish().status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace catserve::testing

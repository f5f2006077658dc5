// Readers that fall behind, on real sockets: their requests wait for them, and nobody else does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/scripted_server.h"

namespace catserve::testing {
namespace {

using ::testing::SizeIs;

constexpr int kWindowBytes = 4096;  // what the transport takes in for a stream that nobody reads
constexpr int32_t kTokens = 240;

// Some 200 bytes a token, so that the window holds few of them.
v1::GenerateRequest Heavy() {
  v1::GenerateRequest request = GreedyRequest({1, 2, 3}, 8, kTokens);
  request.set_logprobs(20);
  request.set_request_id("heavy");
  return request;
}

// Lets steps go on one by one, a question to the server after each, until the request is paused,
// and then as they like; false if it ran to its end first.
bool AwaitPause(ScriptedServer& house) {
  bool paused = false;
  AwaitLoad(house.stubs(), [&](const v1::GetLoadResponse& load) {
    paused = load.paused_requests() == 1;
    if (paused || load.running_requests() + load.waiting_requests() == 0) return true;
    house.executor().Allow(1);
    return false;
  });
  house.executor().Release();
  return paused;
}

bool AbortHeavy(ScriptedServer& house) {
  grpc::ClientContext context;
  v1::AbortRequest request;
  request.set_request_id("heavy");
  v1::AbortResponse response;
  EXPECT_TRUE(house.stubs().generation->Abort(&context, request, &response).ok());
  return response.found();
}

TEST(SlowReader, ItsRequestPausesOthersDoNotAndItGetsEveryTokenInTheEnd) {
  ScriptedServer house(ScriptedServer::Options{.slots = 2});
  std::vector<int32_t> script;
  for (int32_t i = 0; i < kTokens; ++i) script.push_back(i);
  house.executor().SetScript(script);
  Stubs narrow(house.address(), kWindowBytes);
  house.executor().Hold();
  GenerateCall slow(narrow, Heavy());
  house.executor().Allow(1);
  ASSERT_TRUE(slow.Read());  // `started`, and nothing after it
  ASSERT_TRUE(AwaitPause(house));
  for (int i = 0; i < 5; ++i) {
    const Generated quick = Generate(house.stubs(), GreedyRequest({1, 2, 3}, 8, 50));
    ASSERT_TRUE(quick.status.ok()) << quick.status.error_message();
    EXPECT_THAT(quick.ids(), SizeIs(50));
  }
  EXPECT_EQ(GetLoad(house.stubs()).paused_requests(), 1);

  const Generated got = slow.Finish();
  ASSERT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.ids(), script);
  EXPECT_THAT(got.info(), SizeIs(kTokens));
  EXPECT_EQ(got.finished().reason(), v1::FINISH_REASON_LENGTH);
  AwaitIdle(house.stubs());
  EXPECT_EQ(GetLoad(house.stubs()).paused_requests(), 0);
}

TEST(SlowReader, APausedRequestCanBeCancelled) {
  ScriptedServer house;
  Stubs narrow(house.address(), kWindowBytes);
  house.executor().Hold();
  GenerateCall slow(narrow, Heavy());
  house.executor().Allow(1);
  ASSERT_TRUE(slow.Read());
  ASSERT_TRUE(AwaitPause(house));
  slow.Cancel();
  EXPECT_EQ(slow.Finish().status.error_code(), grpc::StatusCode::CANCELLED);
  AwaitIdle(house.stubs());
}

TEST(SlowReader, AnAbortWhileItIsPausedEndsItWithWhatItHas) {
  ScriptedServer house;
  Stubs narrow(house.address(), kWindowBytes);
  house.executor().Hold();
  GenerateCall slow(narrow, Heavy());
  house.executor().Allow(1);
  ASSERT_TRUE(slow.Read());
  ASSERT_TRUE(AwaitPause(house));
  AbortHeavy(house);
  AwaitIdle(house.stubs());
  const Generated got = slow.Finish();
  EXPECT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.ids().size(), got.finished().usage().generated_tokens());
}

TEST(SlowReader, OneThatStaysAwayIsCancelledPausedOrNot) {
  ScriptedServer house(ScriptedServer::Options{.reader_stall = absl::Seconds(2)});
  Stubs narrow(house.address(), kWindowBytes);
  GenerateCall stuck(narrow, Heavy());
  ASSERT_TRUE(stuck.Read());
  AwaitIdle(house.stubs());
  while (AbortHeavy(house)) continue;  // until the call is gone
  EXPECT_EQ(stuck.Finish().status.error_code(), grpc::StatusCode::CANCELLED);
}

}  // namespace
}  // namespace catserve::testing

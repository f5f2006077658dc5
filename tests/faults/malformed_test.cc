// Bytes that no client should send: each harms its own connection at most.
#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/faults/raw_client.h"
#include "tests/faults/vitals.h"
#include "tests/server/calls.h"
#include "tests/server/process.h"

namespace catserve::testing {
namespace {

const std::string kModel = "tests/data/golden/adaptive-tiny";
constexpr char kGenerate[] = "/catserve.v1.Generation/Generate";

std::string Session(const std::string& message) {
  return absl::StrCat(Hello(), CallHeaders(1, kGenerate), CallMessage(1, message));
}

class Malformed : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(server_.WaitUntilServing());
    stubs_ = std::make_unique<Stubs>(server_.Address());
    answer_ = Answer();
    descriptors_ = OpenDescriptors(server_.pid());
  }
  std::vector<int32_t> Answer() {
    const Generated got = Generate(*stubs_, GreedyRequest({5, 6, 7}, 8, 50));
    EXPECT_TRUE(got.status.ok()) << got.status.error_message();
    return got.ids();
  }
  // Sends it all, or as much as the server takes before it hangs up.
  void SendAlone(const std::string& bytes) {
    RawClient client(server_.Address());
    client.Send(bytes);
    client.Leave();
  }
  void ExpectUnharmed() {
    EXPECT_LE(AwaitDescriptors(*stubs_, server_.pid(), descriptors_), descriptors_);
    EXPECT_EQ(Answer(), answer_);
  }

  ServedProcess server_{kModel, {"--slots=4"}};
  std::unique_ptr<Stubs> stubs_;
  std::vector<int32_t> answer_;
  int32_t descriptors_ = 0;
};

TEST_F(Malformed, FramesThatBreakTheRulesEndTheirConnectionOnly) {
  const std::string zeros4(4, '\0'), zeros8(8, '\0');
  const std::string good = GreedyRequest({1, 2, 3}, 8, 20).SerializeAsString();
  const std::string open = absl::StrCat(Hello(), CallHeaders(1, kGenerate));
  std::string many_settings, many_pings, many_resets;
  for (uint32_t i = 0; i < 2000; ++i) {
    many_settings += Frame(FrameType::kSettings, 0, 0, "");
    many_pings += Frame(FrameType::kPing, 0, 0, zeros8);
    absl::StrAppend(&many_resets, CallHeaders(2 * i + 1, kGenerate),
                    Frame(FrameType::kRstStream, 0, 2 * i + 1, zeros4));
  }
  const std::vector<std::string> sessions = {
      "GET / HTTP/1.1\r\n\r\n",
      std::string(100000, 'x'),
      "PRI * HTTP/2.0\r\n\r\nSM",
      Hello() + std::string("\xff\xff\xff\x00\x00\x00\x00\x00\x01", 9),  // 16 MiB of DATA to come
      Hello() + Frame(FrameType::kData, 0, 0, "data of no stream"),
      Hello() + Frame(FrameType::kData, 0, 77, "data of a stream never opened"),
      Hello() + Frame(FrameType::kHeaders, kEndHeaders, 0, "headers of no stream"),
      Hello() + Frame(FrameType::kHeaders, kEndHeaders, 2, "a stream of the server's"),
      Hello() + Frame(FrameType::kHeaders, kEndHeaders, 1, "\xff\xff\xff\xff\xff\xff"),  // HPACK
      Hello() + Frame(FrameType::kHeaders, 0, 1, "") + Frame(FrameType::kPing, 0, 0, zeros8),
      Hello() + Frame(FrameType::kContinuation, kEndHeaders, 1, ""),
      Hello() + Frame(FrameType::kSettings, 0, 0, "odd"),
      Hello() + Frame(FrameType::kSettings, 0, 0, std::string("\0\4\xff\xff\xff\xff", 6)),
      Hello() + Frame(FrameType::kWindowUpdate, 0, 0, zeros4),
      Hello() + Frame(FrameType::kWindowUpdate, 0, 0, "\x7f\xff\xff\xff"),
      Hello() + Frame(FrameType::kPushPromise, kEndHeaders, 1, zeros4),
      Hello() + Frame(static_cast<FrameType>(200), 0, 0, "no such type"),
      Hello() + Frame(FrameType::kGoAway, 0, 0, zeros8) + CallHeaders(1, kGenerate),
      Hello() + CallHeaders(1, "/no.such/Method") + CallMessage(1, good),
      open + open,  // the same stream twice
      open + Frame(FrameType::kData, kEndStream, 1, std::string("\0\0\0\x10\0short", 10)),
      open + Frame(FrameType::kData, kEndStream, 1, std::string("\0\xff\xff\xff\xff", 5)),
      open + Frame(FrameType::kData, kEndStream, 1, std::string("\1\0\0\0\2hi", 7)),  // compressed?
      open + Frame(FrameType::kData, kEndStream, 1, ""),
      Hello() + many_settings,
      Hello() + many_pings,
      Hello() + many_resets,
  };
  for (const std::string& session : sessions) SendAlone(session);
  std::printf("%zu broken sessions\n", sessions.size());
  ExpectUnharmed();
}

TEST_F(Malformed, AThousandSessionsWithBitsFlippedAreEachAnsweredOrEnded) {
  std::mt19937 random(20);
  v1::GenerateRequest request = GreedyRequest({1, 2, 3}, 8, 8);
  request.mutable_sampling()->set_n(2);
  request.mutable_stopping()->add_stop_token_ids(3);
  const std::string whole = Session(request.SerializeAsString());
  const size_t message = whole.size() - request.ByteSizeLong();
  for (int i = 0; i < 1000; ++i) {
    std::string session = whole;
    const size_t first = i % 2 == 0 ? 0 : message;  // anywhere, or in the message alone
    for (auto flips = 1 + random() % 4; flips > 0; --flips) {
      char& byte = session[first + random() % (session.size() - first)];
      byte = static_cast<char>(byte ^ (1 << random() % 8));
    }
    if (random() % 8 == 0) session.resize(random() % session.size());
    SendAlone(session);
  }
  ExpectUnharmed();
}

TEST_F(Malformed, MessagesThatAreNoProtobufAreRefusedAndTheConnectionLives) {
  std::mt19937 random(21);
  RawClient client(server_.Address());
  ASSERT_TRUE(client.Send(Hello()));
  for (uint32_t stream = 1; stream < 400; stream += 2) {
    std::string message(1 + random() % 200, '\0');
    for (char& byte : message) byte = static_cast<char>(random());
    message[0] = '\x0f';  // a wire type that there is not
    ASSERT_TRUE(client.Send(CallHeaders(stream, kGenerate) + CallMessage(stream, message)));
    ASSERT_TRUE(client.Await(FrameType::kHeaders)) << "stream " << stream;
  }
  client.Leave();
  ExpectUnharmed();
}

}  // namespace
}  // namespace catserve::testing

// Tokens of callers: who is served, within which limits, and what owners learn of each other.
#include "server/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/admission.h"
#include "inference/kserve.grpc.pb.h"
#include "server/secret.h"
#include "server/token_bucket.h"
#include "tests/engine/model/checkpoint_writer.h"
#include "tests/server/scripted_server.h"

namespace catserve::testing {
namespace {

using grpc::health::v1::HealthCheckResponse;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr absl::Time kStart = absl::UnixEpoch();

TEST(TokenBucket, HoldsAMinutesWorthAndWaitsForDebts) {
  TokenBucket bucket(60, kStart);  // one a second
  EXPECT_EQ(bucket.Wait(kStart), absl::ZeroDuration());
  bucket.Charge(59, kStart);
  EXPECT_EQ(bucket.Wait(kStart), absl::ZeroDuration()) << "one is left";
  bucket.Charge(11, kStart);  // -10
  EXPECT_EQ(bucket.Wait(kStart), absl::Seconds(11));
  EXPECT_EQ(bucket.Wait(kStart + absl::Seconds(5)), absl::Seconds(6));
  EXPECT_EQ(bucket.Wait(kStart + absl::Seconds(11)), absl::ZeroDuration());
  bucket.Charge(60, kStart + absl::Hours(1));  // full, and no fuller
  EXPECT_EQ(bucket.Wait(kStart + absl::Hours(1)), absl::Seconds(1));
}

TEST(TokenBucket, AClockThatGoesBackGivesNothing) {
  TokenBucket bucket(60, kStart);
  bucket.Charge(60, kStart);
  EXPECT_EQ(bucket.Wait(kStart - absl::Hours(1)), absl::Seconds(1));
  EXPECT_EQ(bucket.Wait(kStart), absl::Seconds(1));
}

TEST(TokenBucket, ANewRateForgetsNoDebt) {
  TokenBucket bucket(60, kStart);
  bucket.Charge(90, kStart);  // -30
  bucket.SetRate(120, kStart);
  bucket.Charge(0, kStart);
  EXPECT_EQ(bucket.Wait(kStart), absl::ZeroDuration()) << "90 of 120 are spent";
  bucket.SetRate(60, kStart);
  EXPECT_EQ(bucket.Wait(kStart), absl::Seconds(31));
}

TEST(OwnerLimits, RequestsAtOnceAreCountedUntilTheyLeave) {
  const auto owner = std::make_shared<Owner>("a", OwnerLimits{.requests_max = 2}, kStart);
  auto first = owner->Enter(kStart), second = owner->Enter(kStart);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_TRUE(absl::IsResourceExhausted(owner->Enter(kStart).status()));
  (*first)->Leave();
  EXPECT_TRUE(owner->Enter(kStart).ok());  // and leaves at once
  first->reset();                          // counts once
  auto third = owner->Enter(kStart);
  EXPECT_TRUE(third.ok());
  EXPECT_FALSE(owner->Enter(kStart).ok());
}

TEST(OwnerLimits, TokensPerMinuteSayWhenToComeBack) {
  const auto owner = std::make_shared<Owner>("a", OwnerLimits{.tokens_per_minute_max = 60}, kStart);
  const auto seat = owner->Enter(kStart);
  ASSERT_TRUE(seat.ok());
  (*seat)->Charge(69, kStart);
  const absl::Status refused = owner->Enter(kStart).status();
  EXPECT_EQ(RetryAfter(refused), absl::Seconds(10)) << refused;
  EXPECT_TRUE(owner->Enter(kStart + absl::Seconds(10)).ok());
}

TokenEntry Entry(const std::string& owner, const std::string& token, OwnerLimits limits = {}) {
  return {owner, Sha256(token), limits};
}

TEST(Access, OneMessageForEveryTokenThatIsNotKnown) {
  Access access(Access::Mode::kTokens);
  access.SetTokens({Entry("a", "one"), Entry("b", "two"), Entry("b", "three")});
  for (const char* good : {"Bearer one", "bearer one"}) {
    const auto caller = access.FindToken({good});
    ASSERT_TRUE(caller.ok());
    EXPECT_EQ(caller->name, "a");
  }
  EXPECT_EQ(access.FindToken({"Bearer three"})->name, "b");
  const std::string words(access.FindToken({}).status().message());
  EXPECT_THAT(words, HasSubstr("authorization: Bearer TOKEN"));
  const std::string huge = "Bearer " + std::string(1000, 'x');
  const std::vector<std::vector<absl::string_view>> bad = {{},
                                                           {""},
                                                           {"Bearer "},
                                                           {"Bearer"},
                                                           {"one"},
                                                           {"Basic one"},
                                                           {"Bearer four"},
                                                           {"Bearer one "},
                                                           {"Bearer one", "Bearer two"},
                                                           {huge},
                                                           {"Bearer on"}};
  for (const auto& values : bad) {
    const absl::Status status = access.FindToken(values).status();
    EXPECT_TRUE(absl::IsUnauthenticated(status));
    EXPECT_EQ(status.message(), words);
  }
}

TEST(Access, AnOwnerKeepsItsCountsWhenTheFileChanges) {
  Access access(Access::Mode::kTokens);
  access.SetTokens({Entry("a", "old", {.requests_max = 1})});
  const auto seat = access.FindToken({"Bearer old"})->Enter(kStart);
  ASSERT_TRUE(seat.ok());
  access.SetTokens({Entry("a", "new", {.requests_max = 1})});
  EXPECT_FALSE(access.FindToken({"Bearer old"}).ok());
  EXPECT_FALSE(access.FindToken({"Bearer new"})->Enter(kStart).ok()) << "the old one's still runs";
  (*seat)->Leave();
  EXPECT_TRUE(access.FindToken({"Bearer new"})->Enter(kStart).ok());
}

TEST(Access, SaltsOfDifferentOwnersAreNeverTheSame) {
  const Caller nobody, a{"a", nullptr}, ab{"ab", nullptr};
  EXPECT_EQ(OwnSalt(nobody, "salt"), "salt");
  EXPECT_NE(OwnSalt(a, "salt"), OwnSalt(ab, "salt"));
  EXPECT_NE(OwnSalt(a, "b"), OwnSalt(ab, ""));
  EXPECT_NE(OwnSalt(a, ""), OwnSalt(nobody, ""));
}

TEST(Secret, TokensAreRandomAndHashed) {
  const std::string one = *MakeToken(), other = *MakeToken();
  EXPECT_NE(one, other);
  EXPECT_EQ(one.size(), std::string("catserve_").size() + 43);  // 32 bytes in base 64
  EXPECT_EQ(absl::BytesToHexString(Sha256("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_TRUE(SameHash(Sha256("abc"), Sha256("abc")));
  EXPECT_FALSE(SameHash(Sha256("abc"), Sha256("abd")));
}

// A server with tokens "alice" and "bob" of owners of these names, and more lines if a test adds
// them.
class Guarded {
 public:
  explicit Guarded(const std::string& limits_of_alice = "") {
    Write(File("alice", "alice", limits_of_alice) + File("bob", "bob"));
    ScriptedServer::Options options;
    options.config.tokens_file = directory_.File("tokens.yaml");
    house_ = std::make_unique<ScriptedServer>(options);
    alice_ = std::make_unique<Stubs>(house_->address());
    alice_->WithToken("alice");
    bob_ = std::make_unique<Stubs>(house_->address());
    bob_->WithToken("bob");
  }

  static std::string File(const std::string& owner, const std::string& token,
                          const std::string& more = "") {
    return absl::StrCat("- owner: ", owner, "\n  sha256: ", absl::BytesToHexString(Sha256(token)),
                        "\n", more);
  }
  void Write(const std::string& text) { directory_.Write("tokens.yaml", text); }

  ScriptedServer& house() { return *house_; }
  Stubs& alice() { return *alice_; }
  Stubs& bob() { return *bob_; }

 private:
  TempDirectory directory_;
  std::unique_ptr<ScriptedServer> house_;
  std::unique_ptr<Stubs> alice_, bob_;
};

void AwaitRequests(Stubs& stubs, int32_t count) {
  AwaitLoad(stubs, [count](const v1::GetLoadResponse& load) {
    return load.running_requests() + load.waiting_requests() == count;
  });
}

TEST(Tokens, EveryMethodNeedsOneAndHealthDoesNot) {
  Guarded guarded;
  Stubs& nobody = guarded.house().stubs();
  Stubs wrong(guarded.house().address());
  wrong.WithToken("mallory");
  for (const char* method : kMethods) {
    SCOPED_TRACE(method);
    EXPECT_TRUE(CallMethod(guarded.alice(), method).ok());
    const grpc::Status none = CallMethod(nobody, method), unknown = CallMethod(wrong, method);
    EXPECT_EQ(none.error_code(), grpc::StatusCode::UNAUTHENTICATED);
    EXPECT_EQ(unknown.error_code(), grpc::StatusCode::UNAUTHENTICATED);
    EXPECT_EQ(none.error_message(), unknown.error_message());
  }
  EXPECT_EQ(CheckHealth(nobody, "readiness"), HealthCheckResponse::SERVING);
}

TEST(Tokens, TheOtherProtocolNeedsOneToo) {
  Guarded guarded;
  const auto ask = [&guarded](const char* token) {
    const auto stub = inference::GRPCInferenceService::NewStub(guarded.house().stubs().channel);
    grpc::ClientContext metadata, infer;
    for (grpc::ClientContext* context : {&metadata, &infer}) {
      context->AddMetadata("authorization", absl::StrCat("Bearer ", token));
    }
    inference::ModelMetadataRequest request;
    request.set_name("scripted");
    inference::ModelMetadataResponse response;
    inference::ModelInferRequest empty;
    empty.set_model_name("scripted");
    inference::ModelInferResponse inferred;
    return std::pair(stub->ModelMetadata(&metadata, request, &response).error_code(),
                     stub->ModelInfer(&infer, empty, &inferred).error_code());
  };
  EXPECT_EQ(ask("alice"), std::pair(grpc::StatusCode::OK, grpc::StatusCode::INVALID_ARGUMENT));
  EXPECT_EQ(ask("mallory"),
            std::pair(grpc::StatusCode::UNAUTHENTICATED, grpc::StatusCode::UNAUTHENTICATED));
}

TEST(Tokens, AStreamOfTheOtherProtocolIsRefusedBeforeItSaysAnything) {
  Guarded guarded;
  const auto stub = inference::GRPCInferenceService::NewStub(guarded.house().stubs().channel);
  grpc::ClientContext context, ready;
  const auto stream = stub->ModelStreamInfer(&context);
  inference::ModelStreamInferResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
  inference::ModelReadyRequest other;
  other.set_name("other");
  inference::ModelReadyResponse is_ready;
  const grpc::Status status = stub->ModelReady(&ready, other, &is_ready);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << "tells no name";
}

TEST(Tokens, RequestsAtOnceAreLimitedAndWhoReadsTheEndMayComeBack) {
  Guarded guarded("  requests_max: 1\n");
  guarded.house().executor().Hold();
  GenerateCall first(guarded.alice(), GreedyRequest({1, 2}, 4, 3));
  AwaitRequests(guarded.bob(), 1);
  const Generated second = Generate(guarded.alice(), GreedyRequest({1}, 4, 1));
  EXPECT_EQ(second.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(second.status.error_message(), HasSubstr("1 requests at once"));
  EXPECT_EQ(second.pushback, "1000");
  GenerateCall other(guarded.bob(), GreedyRequest({1}, 4, 1));  // has no limit
  guarded.house().executor().Release();
  EXPECT_TRUE(other.Finish().status.ok());
  EXPECT_TRUE(first.Finish().status.ok());
  for (int i = 0; i < 20; ++i) {  // at once, each time
    const Generated next = Generate(guarded.alice(), GreedyRequest({1}, 4, 1));
    ASSERT_TRUE(next.status.ok()) << next.status.error_message();
  }
}

TEST(Tokens, PromptAndGeneratedTokensAreCharged) {
  Guarded guarded("  tokens_per_minute_max: 20\n");
  ASSERT_TRUE(Generate(guarded.alice(), GreedyRequest({1, 2, 3}, 4, 10)).status.ok());
  ASSERT_TRUE(Generate(guarded.alice(), GreedyRequest({1, 2, 3}, 4, 10)).status.ok()) << "7 left";
  const Generated refused = Generate(guarded.alice(), GreedyRequest({1}, 4, 1));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("20 tokens per minute"));
  int64_t pushback = 0;
  ASSERT_TRUE(absl::SimpleAtoi(refused.pushback, &pushback));
  EXPECT_GT(pushback, 0);
  EXPECT_LE(pushback, 21'000);  // 7 tokens at 20 a minute
  EXPECT_EQ(CallMethod(guarded.alice(), "Score").error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(CallMethod(guarded.alice(), "GetModel").ok());
  EXPECT_TRUE(CallMethod(guarded.bob(), "Generate").ok());
}

TEST(Tokens, ARefusedRequestCostsNothing) {
  Guarded guarded("  requests_max: 1\n  tokens_per_minute_max: 10\n");
  for (int i = 0; i < 20; ++i) {
    v1::GenerateRequest bad = GreedyRequest({1, 2, 3}, 4, 1);
    if (i % 2 == 0) bad.mutable_budget()->set_chunk_size(7);  // the engine's to refuse
    if (i % 2 == 1) bad.clear_prompt();
    EXPECT_EQ(Generate(guarded.alice(), bad).status.error_code(),
              grpc::StatusCode::INVALID_ARGUMENT);
  }
  EXPECT_TRUE(CallMethod(guarded.alice(), "Generate").ok());
}

TEST(Tokens, RequestsAreTheirOwnersAlone) {
  Guarded guarded;
  guarded.house().executor().Hold();
  v1::GenerateRequest request = GreedyRequest({1, 2}, 4, 100);
  request.set_request_id("same");
  GenerateCall of_alice(guarded.alice(), request), of_bob(guarded.bob(), request);
  AwaitRequests(guarded.bob(), 2);
  EXPECT_EQ(Generate(guarded.alice(), request).status.error_code(),
            grpc::StatusCode::ALREADY_EXISTS)
      << "its own";
  v1::GenerateRequest alone = request;
  alone.set_request_id("of-alice");
  GenerateCall second_of_alice(guarded.alice(), alone);
  AwaitRequests(guarded.bob(), 3);
  EXPECT_FALSE(Abort(guarded.bob(), "of-alice"));
  EXPECT_TRUE(Abort(guarded.bob(), "same"));
  guarded.house().executor().Release();
  EXPECT_EQ(of_bob.Finish().finished().reason(), v1::FINISH_REASON_ABORTED);
  EXPECT_EQ(of_alice.Finish().finished().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(second_of_alice.Finish().finished().reason(), v1::FINISH_REASON_LENGTH);
}

TEST(Tokens, CachedPromptsAreTheirOwnersAlone) {
  Guarded guarded;
  v1::GenerateRequest request = GreedyRequest(std::vector<int32_t>(64, 3), 4, 1);
  request.set_cache_salt("the same");
  EXPECT_EQ(Generate(guarded.alice(), request).started().cached_tokens(), 0);
  EXPECT_GT(Generate(guarded.alice(), request).started().cached_tokens(), 0);
  EXPECT_EQ(Generate(guarded.bob(), request).started().cached_tokens(), 0);
  EXPECT_GT(Generate(guarded.bob(), request).started().cached_tokens(), 0);
}

TEST(Tokens, ANewFileIsTakenOverAndABrokenOneLeftAside) {
  Guarded guarded;
  guarded.house().executor().Hold();
  GenerateCall running(guarded.bob(), GreedyRequest({1, 2}, 4, 50));
  AwaitRequests(guarded.bob(), 1);

  const std::string good = Guarded::File("alice", "alice") + Guarded::File("carol", "carol");
  guarded.Write(good);
  guarded.house().server().Reload();
  Stubs carol(guarded.house().address());
  carol.WithToken("carol");
  while (!CallMethod(carol, "GetModel").ok()) continue;
  EXPECT_EQ(CallMethod(guarded.bob(), "GetModel").error_code(), grpc::StatusCode::UNAUTHENTICATED);

  guarded.Write("- owner: alice\n");  // half of it
  const std::string log = ReloadUntilLogged(guarded.house().server(), "reload_failed");
  EXPECT_THAT(log, HasSubstr("tokens.yaml:1: sha256: missing"));
  EXPECT_TRUE(CallMethod(carol, "GetModel").ok());

  guarded.house().executor().Release();
  const Generated got = running.Finish();  // its token is gone, its stream is not
  EXPECT_TRUE(got.status.ok());
  EXPECT_THAT(got.ids(), SizeIs(50));
}

}  // namespace
}  // namespace catserve::testing

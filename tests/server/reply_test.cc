// What Generate's stream makes of events that a scripted model does not bring about.
#include "server/generate_reply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/reader_lag.h"
#include "server/refusal.h"
#include "server/request_reader.h"
#include "server/wire.h"

namespace catserve::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

TokensEvent Tokens(int32_t choice, const std::vector<TokenId>& ids) {
  TokensEvent event{.choice = choice};
  for (const TokenId id : ids) event.tokens.push_back({.token = {.id = id}});
  return event;
}

// Without a tokenizer: ids are what counts here.
class ReplyTest : public ::testing::Test {
 protected:
  ReplyTest() {
    model_.description.geometry.kind = ModelKind::kCat;
    model_.description.geometry.chunk_sizes = {4, 8, 16};
    model_.description.geometry.bytes_per_entry = 64;
  }

  std::vector<v1::GenerateResponse> PopAll() {
    std::vector<v1::GenerateResponse> messages;
    while (!reply_.empty()) messages.push_back(*Parse<v1::GenerateResponse>(reply_.Pop()));
    return messages;
  }

  ServedModel model_;
  std::unique_ptr<Metrics> metrics_ = *Metrics::Create("");
  GenerateReply reply_{model_, *metrics_, GenerateReply::Options{.request_id = "reply"}};
};

TEST_F(ReplyTest, AChangedBudgetStandsBetweenTheTokensBeforeAndAfterIt) {
  reply_.Add(StartedEvent{.prompt_tokens = 20, .chunk_size = 4});
  reply_.Add(Tokens(0, {1, 2}));
  reply_.Add(Tokens(1, {7}));
  reply_.Add(BudgetChangedEvent{.from_chunk_size = 4, .to_chunk_size = 8, .at_token = 22});
  reply_.Add(Tokens(0, {3}));
  reply_.Add(Tokens(0, {4}));
  reply_.Add(Tokens(1, {8}));
  const std::vector<v1::GenerateResponse> got = PopAll();
  ASSERT_THAT(got, SizeIs(6));
  EXPECT_EQ(got[0].started().chunk_size(), 4);
  EXPECT_THAT(got[1].tokens().token_ids(), ElementsAre(1, 2));
  EXPECT_THAT(got[2].tokens().token_ids(), ElementsAre(7));
  EXPECT_EQ(got[3].budget_changed().from_chunk_size(), 4);
  EXPECT_EQ(got[3].budget_changed().to_chunk_size(), 8);
  EXPECT_EQ(got[3].budget_changed().at_token(), 22);
  EXPECT_THAT(got[4].tokens().token_ids(), ElementsAre(3, 4));
  EXPECT_EQ(got[5].tokens().choice_index(), 1);
}

TEST_F(ReplyTest, UsageListsEveryChangeAndAKvLimitIsAnEndLikeOthers) {
  reply_.Add(StartedEvent{.chunk_size = 4});
  reply_.Add(Tokens(0, {1}));
  reply_.Add(ChoiceEndEvent{.choice = 0, .reason = FinishReason::kKvLimit});
  FinishedEvent end{.reason = FinishReason::kKvLimit};
  end.usage.chunk_size = 16;
  end.usage.preemptions = 3;
  end.usage.budget_changes = {{4, 8, 30}, {8, 16, 90}};
  ASSERT_TRUE(reply_.Finish(end, /*left=*/false).ok());
  const std::vector<v1::GenerateResponse> got = PopAll();
  ASSERT_THAT(got, SizeIs(4));
  EXPECT_EQ(got[2].choice_finished().reason(), v1::FINISH_REASON_KV_LIMIT);
  EXPECT_EQ(got[3].finished().reason(), v1::FINISH_REASON_KV_LIMIT);
  const v1::Usage& usage = got[3].finished().usage();
  EXPECT_EQ(usage.chunk_size(), 16);
  EXPECT_EQ(usage.preemptions(), 3);
  ASSERT_EQ(usage.budget_changes_size(), 2);
  EXPECT_EQ(usage.budget_changes(1).from_chunk_size(), 8);
  EXPECT_EQ(usage.budget_changes(1).to_chunk_size(), 16);
  EXPECT_EQ(usage.budget_changes(1).at_token(), 90);
}

TEST_F(ReplyTest, TokensThatWaitAreCountedUntilTheyAreTaken) {
  reply_.Add(StartedEvent{});
  EXPECT_EQ(reply_.tokens(), 0);
  reply_.Add(Tokens(0, {1, 2, 3}));
  reply_.Add(Tokens(1, {4}));
  EXPECT_EQ(reply_.tokens(), 4);
  reply_.Pop();  // `started`
  EXPECT_EQ(reply_.tokens(), 4);
  reply_.Pop();
  EXPECT_EQ(reply_.tokens(), 1);
  reply_.Pop();
  EXPECT_EQ(reply_.tokens(), 0);
}

TEST(ReaderLag, PausesPastTheLimitAndGoesOnBelowHalfOfIt) {
  using Change = ReaderLag::Change;
  ReaderLag lag(10);
  EXPECT_EQ(lag.Observe(10), Change::kNone);
  EXPECT_EQ(lag.Observe(11), Change::kPause);
  EXPECT_EQ(lag.Observe(200), Change::kNone);  // told once
  EXPECT_EQ(lag.Observe(5), Change::kNone);
  EXPECT_EQ(lag.Observe(4), Change::kResume);
  EXPECT_EQ(lag.Observe(10), Change::kNone);
  EXPECT_EQ(lag.Observe(11), Change::kPause);
  ReaderLag least(1);  // every limit can be left again
  EXPECT_EQ(least.Observe(2), Change::kPause);
  EXPECT_EQ(least.Observe(0), Change::kResume);
}

TEST(Pushback, IsASecondWhereTheRefusalDoesNotSay) {
  EXPECT_EQ(PushbackMs(absl::ResourceExhaustedError("no word of time")), "1000");
  EXPECT_EQ(PushbackMs(absl::UnavailableError("draining")), std::nullopt);
}

TEST(RequestReader, PassesWhatThePrefixCacheAndTheQueueAreTold) {
  ServedModel model;
  model.description.geometry = {.kind = ModelKind::kCat,
                                .chunk_sizes = {4, 8},
                                .block_size = 64,
                                .vocab_size = 100,
                                .bytes_per_entry = 64};
  v1::GenerateRequest message;
  message.mutable_prompt()->mutable_token_ids()->mutable_ids()->Add(1);
  const auto plain = ReadGenerate(message, model);
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->request.cache_salt, "");
  EXPECT_FALSE(plain->request.bypass_prefix_cache);
  message.set_cache_salt("tenant");
  message.set_bypass_prefix_cache(true);
  message.set_priority(-7);
  const auto read = ReadGenerate(message, model);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->request.cache_salt, "tenant");
  EXPECT_TRUE(read->request.bypass_prefix_cache);
  EXPECT_EQ(read->request.priority, -7);
}

}  // namespace
}  // namespace catserve::testing

// Requests that share one server's memory, as their clients see it: budgets that bend, limits of
// memory, prompts found in the prefix cache.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/scripted_server.h"

namespace catserve::testing {
namespace {

using ::testing::SizeIs;

constexpr int64_t kPageBytes = 16 * 384;  // entries of a page, bytes of an entry

v1::GenerateRequest AskAuto(int32_t max_tokens) {
  v1::GenerateRequest request = GreedyRequest({1, 2, 3}, 0, max_tokens);
  request.mutable_budget()->mutable_auto_();
  return request;
}

// 240 tokens hold 4 pages at chunk size 4 and 3 at 8: six pages are room for one request of the
// finest size, or for two coarser ones.
TEST(Sharing, AnAutomaticBudgetCoarsensInTheStreamToMakeRoomForAnother) {
  ScriptedServer house(ScriptedServer::Options{.slots = 2, .kv_pages = 6});
  const auto [got, other] = house.Meet(AskAuto(240), GreedyRequest({1, 2, 3}, 8, 240));
  ASSERT_TRUE(got.status.ok() && other.status.ok()) << got.status.error_message();
  EXPECT_THAT(got.ids(), SizeIs(240));
  EXPECT_THAT(other.ids(), SizeIs(240));

  EXPECT_EQ(got.started().chunk_size(), 4);
  std::vector<v1::BudgetChanged> changes;
  int32_t tokens = 3;  // the prompt's
  for (const v1::GenerateResponse& event : got.events) {
    tokens += event.tokens().token_ids_size();
    if (!event.has_budget_changed()) continue;
    changes.push_back(event.budget_changed());
    EXPECT_EQ(changes.back().at_token(), tokens);
  }
  ASSERT_THAT(changes, SizeIs(1));
  EXPECT_EQ(changes[0].from_chunk_size(), 4);
  EXPECT_EQ(changes[0].to_chunk_size(), 8);
  const v1::Usage usage = got.finished().usage();
  EXPECT_EQ(usage.chunk_size(), 8);
  ASSERT_EQ(usage.budget_changes_size(), 1);
  EXPECT_EQ(usage.budget_changes(0).SerializeAsString(), changes[0].SerializeAsString());
  EXPECT_EQ(GetLoad(house.stubs()).budgets_coarsened(), 1);
}

TEST(Sharing, ABoundThatNoChunkSizeKeepsEndsTheTextWithKvLimit) {
  ScriptedServer house;
  v1::GenerateRequest request = AskAuto(240);
  request.mutable_budget()->mutable_auto_()->set_kv_bytes_max(kPageBytes);
  const Generated got = Generate(house.stubs(), request);
  ASSERT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.choice_end().reason(), v1::FINISH_REASON_KV_LIMIT);
  EXPECT_EQ(got.finished().reason(), v1::FINISH_REASON_KV_LIMIT);
  EXPECT_GT(got.ids().size(), 30u);  // 16 entries of chunk size 4 hold more
  EXPECT_LT(got.ids().size(), 240u);
  EXPECT_EQ(got.finished().usage().kv_bytes_peak(), kPageBytes);
  AwaitIdle(house.stubs());
}

int32_t CachedTokens(ScriptedServer& house, const v1::GenerateRequest& request) {
  const Generated got = Generate(house.stubs(), request);
  EXPECT_TRUE(got.status.ok()) << got.status.error_message();
  EXPECT_EQ(got.finished().usage().cached_tokens(), got.started().cached_tokens());
  return got.started().cached_tokens();
}

TEST(Sharing, PromptsAreFoundAgainAtTheirChunkSizeAndSaltUnlessTheyPassTheCacheBy) {
  ScriptedServer house;
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 100; ++i) prompt.push_back(i);
  v1::GenerateRequest request = GreedyRequest(prompt, 4, 5);
  v1::GenerateRequest bypassing = request;
  bypassing.set_bypass_prefix_cache(true);
  v1::GenerateRequest salted = request;
  salted.set_cache_salt("tenant");
  v1::GenerateRequest coarser = GreedyRequest(prompt, 8, 5);

  EXPECT_EQ(CachedTokens(house, bypassing), 0);
  EXPECT_EQ(CachedTokens(house, request), 0);  // nothing was left behind
  EXPECT_GE(CachedTokens(house, request), 92);
  EXPECT_EQ(CachedTokens(house, bypassing), 0);
  EXPECT_EQ(CachedTokens(house, salted), 0);
  EXPECT_GE(CachedTokens(house, salted), 92);
  EXPECT_EQ(CachedTokens(house, coarser), 0);
  const v1::GetLoadResponse load = GetLoad(house.stubs());
  EXPECT_GT(load.kv_pages_cached(), 0);
  EXPECT_GT(load.prefix_hit_tokens(), 0);
  EXPECT_GT(load.prefix_query_tokens(), load.prefix_hit_tokens());
}

// One slot: whoever waits comes in turn. A level of priority is a second of arrival.
TEST(Sharing, AnUrgentRequestPassesOneThatCameBefore) {
  ScriptedServer house(ScriptedServer::Options{.slots = 1});
  house.executor().Hold();
  GenerateCall running(house.stubs(), AskAuto(4));
  AwaitLoad(house.stubs(), [](const auto& load) { return load.running_requests() == 1; });
  v1::GenerateRequest patient = AskAuto(100);
  GenerateCall second(house.stubs(), patient);
  AwaitLoad(house.stubs(), [](const auto& load) { return load.waiting_requests() == 1; });
  v1::GenerateRequest urgent = AskAuto(4);
  urgent.set_priority(-100);
  GenerateCall third(house.stubs(), urgent);
  AwaitLoad(house.stubs(), [](const auto& load) { return load.waiting_requests() == 2; });
  house.executor().Allow(20);  // enough for the first and the urgent one, not for the patient one
  EXPECT_TRUE(running.Finish().status.ok());
  EXPECT_TRUE(third.Finish().status.ok());
  EXPECT_EQ(GetLoad(house.stubs()).running_requests() + GetLoad(house.stubs()).waiting_requests(),
            1);
  house.executor().Release();
  EXPECT_TRUE(second.Finish().status.ok());
}

}  // namespace
}  // namespace catserve::testing

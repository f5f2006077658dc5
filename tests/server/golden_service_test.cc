// The authors' golden data through the real server: processes, sockets and all.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <thread>

#include "tests/engine/model/golden.h"
#include "tests/server/calls.h"
#include "tests/server/process.h"

namespace catserve::testing {
namespace {

constexpr int kTop = 20;
constexpr double kTolerance = 1e-3;

std::vector<double> LogSoftmax(const float* logits, size_t count) {
  const double most = *std::max_element(logits, logits + count);
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += std::exp(logits[i] - most);
  std::vector<double> logprobs(count);
  for (size_t i = 0; i < count; ++i) logprobs[i] = logits[i] - most - std::log(sum);
  return logprobs;
}

// The token's own log-probability, and the 20 likeliest in order.
void ExpectLogprobs(const v1::TokenInfo& info, const std::vector<double>& golden) {
  EXPECT_NEAR(info.logprob(), golden[info.token_id()], kTolerance);
  ASSERT_EQ(info.top_size(), kTop);
  std::vector<double> sorted = golden;
  std::partial_sort(sorted.begin(), sorted.begin() + kTop, sorted.end(), std::greater<>());
  for (int i = 0; i < kTop; ++i) {
    EXPECT_NEAR(info.top(i).logprob(), golden[info.top(i).token_id()], kTolerance);
    EXPECT_NEAR(info.top(i).logprob(), sorted[i], kTolerance);
  }
}

class GoldenService : public ::testing::TestWithParam<std::string> {
 protected:
  GoldenService()
      : golden_(LoadGolden(GetParam())),
        server_(GoldenDirectory(GetParam())),
        stubs_(server_.Address()) {
    EXPECT_TRUE(server_.WaitUntilServing());
  }

  v1::GenerateRequest Request(const GoldenCase& golden) const {
    v1::GenerateRequest request =
        GreedyRequest(golden.prompt, golden.chunk_size, static_cast<int32_t>(golden.greedy.size()));
    request.set_logprobs(kTop);
    return request;
  }

  const Golden golden_;
  ServedProcess server_;
  Stubs stubs_;
};

TEST_P(GoldenService, GreedyTokensAndLogprobsOfEveryCase) {
  int continued = 0;
  for (const GoldenCase& golden : golden_.cases) {
    if (golden.greedy.empty()) continue;
    SCOPED_TRACE(golden.name);
    ++continued;
    const Generated got = Generate(stubs_, Request(golden));
    ASSERT_TRUE(got.status.ok()) << got.status.error_message();
    EXPECT_EQ(got.ids(), golden.greedy);
    EXPECT_EQ(got.started().chunk_size(), golden.chunk_size);
    const std::vector<v1::TokenInfo> info = got.info();
    ASSERT_EQ(info.size(), golden.greedy.size());
    ExpectLogprobs(info.front(), LogSoftmax(golden.logits_last.data(), golden.logits_last.size()));
    if (golden.logits_end.empty()) continue;
    ExpectLogprobs(info.back(), LogSoftmax(golden.logits_end.data(), golden.logits_end.size()));
  }
  EXPECT_GT(continued, 5);
  AwaitIdle(stubs_);
}

TEST_P(GoldenService, ScoreOfEveryPosition) {
  int scored_cases = 0;
  for (const GoldenCase& golden : golden_.cases) {
    if (golden.logits_all.empty() || golden.prompt.size() < 2) continue;
    SCOPED_TRACE(golden.name);
    ++scored_cases;
    v1::ScoreRequest request;
    request.mutable_text()->mutable_token_ids()->mutable_ids()->Add(golden.prompt.begin(),
                                                                    golden.prompt.end());
    if (golden.chunk_size > 0) request.set_chunk_size(golden.chunk_size);
    request.set_top_logprobs(kTop);
    const Scored scored = Score(stubs_, request);
    ASSERT_TRUE(scored.status.ok()) << scored.status.error_message();
    ASSERT_EQ(scored.tokens.size(), golden.prompt.size() - 1);
    const size_t vocabulary = golden.logits_all.size() / golden.prompt.size();
    double sum = 0;
    for (size_t i = 0; i < scored.tokens.size(); ++i) {
      const auto logprobs = LogSoftmax(golden.logits_all.data() + i * vocabulary, vocabulary);
      EXPECT_EQ(scored.tokens[i].token_id(), golden.prompt[i + 1]);
      ExpectLogprobs(scored.tokens[i], logprobs);
      sum += logprobs[golden.prompt[i + 1]];
    }
    EXPECT_NEAR(scored.finished.sum_logprob(), sum, kTolerance * scored.tokens.size());
  }
  EXPECT_GT(scored_cases, 0);
  AwaitIdle(stubs_);
}

TEST_P(GoldenService, StreamsSideBySideDoNotTouchEachOther) {
  std::vector<const GoldenCase*> cases;
  for (const GoldenCase& golden : golden_.cases) {
    if (!golden.greedy.empty()) cases.push_back(&golden);
  }
  std::vector<Generated> got(cases.size());
  std::vector<std::thread> clients;
  for (size_t i = 0; i < cases.size(); ++i) {
    clients.emplace_back([&, i] {
      Stubs own(server_.Address());
      got[i] = Generate(own, Request(*cases[i]));
    });
  }
  for (std::thread& client : clients) client.join();
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(cases[i]->name);
    ASSERT_TRUE(got[i].status.ok()) << got[i].status.error_message();
    EXPECT_EQ(got[i].ids(), cases[i]->greedy);
  }
  AwaitIdle(stubs_);
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenService, ::testing::ValuesIn(kGoldenModels),
                         [](const auto& info) {
                           return info.param.substr(0, info.param.find('-'));
                         });

}  // namespace
}  // namespace catserve::testing

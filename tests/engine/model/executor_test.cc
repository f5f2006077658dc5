// What steps do beside layers: histories, draws, scores, and the limits of the executor.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/model/golden.h"
#include "tests/engine/model/model_runner.h"

namespace catserve::testing {
namespace {

using ::testing::HasSubstr;

class ExecutorTest : public ::testing::Test {
 protected:
  const Golden golden_ = LoadGolden("adaptive-tiny");
  const GoldenCase case_ = golden_.Case("c4_n23");
  ModelRunner runner_{GoldenDirectory("adaptive-tiny"), {}};
};

double LogSoftmax(const std::vector<float>& logits, TokenId id) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  return logits[id] - std::log(sum);
}

TEST_F(ExecutorTest, AnEmptyPlanIsAStepThatDoesNothing) {
  const StepResult result = runner_.Run({});
  EXPECT_TRUE(result.samples.empty());
  EXPECT_TRUE(result.scores.empty());
}

TEST_F(ExecutorTest, ADrawReportsTheModelsLogProbabilities) {
  const SamplingParams params{.temperature = 0, .logprobs = 2};
  PlanWriter sequence = runner_.Sequence(0, case_.chunk_size);
  StepPlan plan;
  plan.samples.push_back(sequence.Draw(sequence.Prefill(case_.prompt, plan), &params));
  const SampleResult draw = runner_.Run(plan).samples.at(0);
  EXPECT_EQ(draw.token.id, case_.greedy[0]);
  EXPECT_NEAR(draw.token.logprob, LogSoftmax(case_.logits_last, draw.token.id), 1e-3);
  ASSERT_EQ(draw.top.size(), 2);
  EXPECT_EQ(draw.top[0].id, draw.token.id);
  EXPECT_NEAR(draw.top[0].logprob - draw.top[1].logprob, case_.greedy_margins[0], 1e-3);
}

TEST_F(ExecutorTest, ForbiddenIdsAndBiasesReachTheSampler) {
  PlanWriter sequence = runner_.Sequence(0, case_.chunk_size);
  StepPlan plan;
  const int32_t row = sequence.Prefill(case_.prompt, plan);
  const SamplingParams greedy{.temperature = 0};
  SamplingParams biased{.temperature = 0};
  biased.logit_bias = {{5, 100.0f}};
  const std::vector<TokenId> forbidden = {case_.greedy[0]};
  plan.samples = {sequence.Draw(row, &greedy), sequence.Draw(row, &biased)};
  plan.samples[0].forbidden = forbidden;
  const StepResult result = runner_.Run(plan);
  EXPECT_NE(result.samples[0].token.id, case_.greedy[0]);
  EXPECT_NEAR(case_.logits_last[case_.greedy[0]] - case_.logits_last[result.samples[0].token.id],
              case_.greedy_margins[0], 1e-3);
  EXPECT_EQ(result.samples[1].token.id, 5);
}

TEST_F(ExecutorTest, PenaltiesTellThePromptFromWhatWasGenerated) {
  // The prompt's last token is made the winner by 1; every penalty takes away more than that.
  const TokenId last = case_.prompt.back();
  const float best = case_.logits_last[case_.greedy[0]];
  SamplingParams none{.temperature = 0};
  none.logit_bias = {{last, best - case_.logits_last[last] + 1}};
  SamplingParams presence = none, frequency = none, repetition = none;
  presence.presence_penalty = 2;
  frequency.frequency_penalty = 2;
  repetition.repetition_penalty = 2;

  PlanWriter sequence = runner_.Sequence(0, case_.chunk_size);
  StepPlan plan;
  const int32_t row = sequence.Prefill(case_.prompt, plan);
  const auto wins = [&](const SamplingParams& params, int32_t prompt_tokens) {
    plan.samples = {sequence.Draw(row, &params)};
    plan.samples[0].prompt_tokens = prompt_tokens;
    return runner_.Run(plan).samples[0].token.id == last;
  };
  EXPECT_TRUE(wins(none, 23));
  EXPECT_TRUE(wins(presence, 23));
  EXPECT_FALSE(wins(presence, 22));
  EXPECT_TRUE(wins(frequency, 23));
  EXPECT_FALSE(wins(frequency, 22));
  EXPECT_FALSE(wins(repetition, 23));
  EXPECT_FALSE(wins(repetition, 22));
}

TEST_F(ExecutorTest, ChoicesOfOneRowDrawApart) {
  const SamplingParams hot{.temperature = 5, .seed = 9};
  PlanWriter sequence = runner_.Sequence(0, case_.chunk_size);
  StepPlan plan;
  const int32_t row = sequence.Prefill(case_.prompt, plan);
  for (int32_t choice = 0; choice < 300; ++choice) {  // more than one block of logits
    plan.samples.push_back(sequence.Draw(row, &hot));
    plan.samples.back().choice = choice;
    plan.samples.back().slot = choice % ModelRunner::kSlots;
  }
  const std::vector<SampleResult> draws = runner_.Run(plan).samples;
  ASSERT_EQ(draws.size(), 300);
  std::vector<TokenId> ids;
  for (const SampleResult& draw : draws) ids.push_back(draw.token.id);
  std::sort(ids.begin(), ids.end());
  EXPECT_GT(std::unique(ids.begin(), ids.end()) - ids.begin(), 50);
  // The same key draws the same token, whatever else is in the batch.
  plan.samples = {plan.samples[299]};
  EXPECT_EQ(runner_.Run(plan).samples[0].token.id, draws[299].token.id);
}

TEST_F(ExecutorTest, ScoresAreTheLogProbabilitiesOfTheHistory) {
  const GoldenCase& c = golden_.Case("c16_n256");
  PlanWriter sequence = runner_.Sequence(2, 2);
  StepPlan plan;
  const std::vector<int32_t> rows = sequence.ScoreAll(c.prompt, plan);
  for (int32_t i = 0; i + 1 < rows.size(); ++i) {
    plan.scores.push_back({.row = rows[i], .slot = 2, .position = i + 1, .top_n = i % 3});
  }
  plan.scores.push_back(plan.scores.front());  // out of order: a second read of the history
  const std::vector<SampleResult> scores = runner_.Run(plan).scores;
  ASSERT_EQ(scores.size(), 256);
  const std::vector<float>& logits = runner_.executor().trace().logits;
  for (size_t i = 0; i < scores.size(); ++i) {
    const std::vector<float> row(logits.begin() + i * 512, logits.begin() + (i + 1) * 512);
    EXPECT_EQ(scores[i].token.id, c.prompt[i < 255 ? i + 1 : 1]);
    EXPECT_NEAR(scores[i].token.logprob, LogSoftmax(row, scores[i].token.id), 1e-4);
    EXPECT_EQ(scores[i].top.size(), i < 255 ? i % 3 : 0);
  }
}

TEST_F(ExecutorTest, ATokenMayBeDrawnWhenTheContextIsFull) {
  const GoldenCase& c = golden_.Case("c8_n256");
  const SamplingParams greedy{.temperature = 0};
  PlanWriter sequence = runner_.Sequence(ModelRunner::kSlots - 1, c.chunk_size);
  StepPlan plan;
  plan.samples.push_back(sequence.Draw(sequence.Prefill(c.prompt, plan), &greedy));
  const TokenId best = static_cast<TokenId>(
      std::max_element(c.logits_last.begin(), c.logits_last.end()) - c.logits_last.begin());
  EXPECT_EQ(runner_.Run(plan).samples[0].token.id, best);
}

TEST_F(ExecutorTest, CreateNamesTheOptionThatIsWrong) {
  const auto backend = MakeBackend("cpu", 1).value();
  const auto message = [&](ExecutorOptions options) {
    const auto executor = ModelExecutor::Create(runner_.model(), *backend, options);
    EXPECT_FALSE(executor.ok());
    return std::string(executor.status().message());
  };
  EXPECT_THAT(message({.kv_pages = 0}), HasSubstr("kv_pages is 0"));
  EXPECT_THAT(message({.kv_pages = int64_t{1} << 40}), HasSubstr("kv_pages is 1099511627776"));
  EXPECT_THAT(message({.slots = 0, .kv_pages = 4}), HasSubstr("slots is 0"));
  EXPECT_THAT(message({.slots = 1 << 30, .kv_pages = 4}), HasSubstr("slots is 1073741824"));
  EXPECT_THAT(message({.kv_pages = 4, .kv_dtype = DType::kF16}), HasSubstr("kv_dtype is F16"));
  EXPECT_THAT(message({.kv_pages = 4, .step_rows_max = 0}), HasSubstr("step_rows_max is 0"));
  const auto huge = ModelExecutor::Create(runner_.model(), *backend, {.kv_pages = 1 << 30});
  EXPECT_EQ(huge.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(huge.status().message()), HasSubstr("KV memory of 1073741824 pages"));
}

TEST_F(ExecutorTest, PlansBeyondTheLimitsAbort) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a forked child would lack the worker threads
  PlanWriter sequence = runner_.Sequence(0, 4);
  StepPlan plan;
  sequence.Prefill(case_.prompt, plan);
  plan.page_ids[0] = ModelRunner::kSlots * ModelRunner::kPagesPerSlot;
  EXPECT_DEATH(runner_.Run(plan), "page 1200 of 1200");
  plan = {};
  plan.tokens = {512};
  EXPECT_DEATH(runner_.Run(plan), "token 512 of a vocabulary of 512");
  plan = {};
  plan.rows.resize(1025);
  EXPECT_DEATH(runner_.Run(plan), "1025 rows in a step of at most 1024");
  plan = {};
  plan.tokens = {1, 2};
  plan.history_writes = {{.slot = 0, .position = 256, .first = 0, .count = 2}};
  EXPECT_DEATH(runner_.Run(plan), "lie outside the history");
}

}  // namespace
}  // namespace catserve::testing

// The whole core without transport: requests through the engine, its scheduler and the real model.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/model/golden.h"
#include "tests/engine/model/model_runner.h"
#include "tests/engine/model/tested_backends.h"

namespace catserve::testing {
namespace {

// What a request's events amount to.
struct Outcome {
  std::map<int32_t, std::vector<SampleResult>> tokens;  // by choice
  std::vector<SampleResult> scores;                     // of tokens first_score ..
  int32_t first_score = -1;
  FinishReason reason = FinishReason::kFailed;
};

class EngineGoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  // Few rows and pages, so that prompts are cut, sequences wait and memory runs short.
  static inline const EngineOptions kOptions{.slots = 6, .kv_pages = 90, .step_rows_max = 48};

  EngineGoldenTest() {
    const std::string directory = GoldenDirectory(GetParam());
    model_ = Model::Load(directory, *backend_).value();
    executor_ = ModelExecutor::Create(*model_, *backend_,
                                      {.slots = kOptions.slots,
                                       .kv_pages = kOptions.kv_pages,
                                       .step_rows_max = kOptions.step_rows_max})
                    .value();
    engine_ =
        std::make_unique<Engine>(Geometry(model_->config(), DType::kF32), *executor_, kOptions);
  }

  // Submits all requests at once and waits for them.
  std::vector<Outcome> RunAll(std::vector<Request> requests) {
    std::vector<Outcome> outcomes(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      Outcome& outcome = outcomes[i];
      const auto sink = [&outcome](const Event& event) { Add(event, outcome); };
      const auto key = engine_->Submit(std::move(requests[i]), sink);
      EXPECT_TRUE(key.ok()) << key.status();
    }
    engine_->Drain(absl::Minutes(4));
    return outcomes;
  }

  static void Add(const Event& event, Outcome& outcome) {
    if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
      auto& all = outcome.tokens[tokens->choice];
      all.insert(all.end(), tokens->tokens.begin(), tokens->tokens.end());
    } else if (const auto* scores = std::get_if<ScoresEvent>(&event)) {
      if (outcome.first_score < 0) outcome.first_score = scores->first;
      outcome.scores.insert(outcome.scores.end(), scores->scores.begin(), scores->scores.end());
    } else if (const auto* finished = std::get_if<FinishedEvent>(&event)) {
      outcome.reason = finished->reason;
    }
  }

  static Request Generate(const GoldenCase& c) {
    Request request;
    request.prompt = c.prompt;
    request.budget.chunk_size = c.chunk_size;
    request.sampling.temperature = 0;
    request.sampling.logprobs = 0;
    request.stop.max_tokens = static_cast<int32_t>(c.greedy.size());
    return request;
  }

  static std::vector<TokenId> Ids(const std::vector<SampleResult>& results) {
    std::vector<TokenId> ids;
    for (const SampleResult& result : results) ids.push_back(result.token.id);
    return ids;
  }

  const Golden golden_ = LoadGolden(GetParam());
  std::unique_ptr<Backend> backend_ = MakeBackend(Tested().fast, 1).value();
  std::unique_ptr<Model> model_;
  std::unique_ptr<ModelExecutor> executor_;
  std::unique_ptr<Engine> engine_;
};

TEST_P(EngineGoldenTest, AllCasesAtOnceContinueExactly) {
  std::vector<const GoldenCase*> cases;
  std::vector<Request> requests;
  for (const GoldenCase& c : golden_.cases) {
    if (c.greedy.empty()) continue;
    cases.push_back(&c);
    requests.push_back(Generate(c));
  }
  const std::vector<Outcome> outcomes = RunAll(std::move(requests));
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(outcomes[i].reason, FinishReason::kLength) << cases[i]->name;
    EXPECT_EQ(Ids(outcomes[i].tokens.at(0)), cases[i]->greedy) << cases[i]->name;
  }
}

// The contract of Score: on the CPU it equals Generate's log-probabilities bitwise.
TEST_P(EngineGoldenTest, ScoreEqualsWhatGenerateReported) {
  const float kTolerance = Tested().same_bits ? 0.0f : 1e-3f;
  std::vector<const GoldenCase*> cases;
  std::vector<Request> requests;
  for (const GoldenCase& c : golden_.cases) {
    if (c.greedy.empty() || c.prompt.size() > 50) continue;
    cases.push_back(&c);
    requests.push_back(Generate(c));
    Request score = Generate(c);
    score.task = Task::kScore;
    score.prompt.insert(score.prompt.end(), c.greedy.begin(), c.greedy.end());
    requests.push_back(score);
  }
  const std::vector<Outcome> outcomes = RunAll(std::move(requests));
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::vector<SampleResult>& generated = outcomes[2 * i].tokens.at(0);
    const Outcome& scored = outcomes[2 * i + 1];
    const size_t prompt = cases[i]->prompt.size() - scored.first_score;
    ASSERT_EQ(scored.scores.size(), prompt + generated.size()) << cases[i]->name;
    for (size_t j = 0; j < generated.size(); ++j) {
      EXPECT_EQ(scored.scores[prompt + j].token.id, generated[j].token.id) << cases[i]->name;
      EXPECT_NEAR(scored.scores[prompt + j].token.logprob, generated[j].token.logprob, kTolerance)
          << cases[i]->name << " token " << j;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EngineGoldenTest, ::testing::ValuesIn(kBothLayouts),
                         [](const auto& info) {
                           std::string name = info.param;
                           name[name.find('-')] = '_';
                           return name;
                         });

}  // namespace
}  // namespace catserve::testing

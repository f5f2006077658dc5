// The golden data of both layouts, every model, chunk size and length, on every backend linked.
#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "engine/model/checkpoint.h"
#include "engine/model/weights.h"
#include "gtest/gtest.h"
#include "tests/engine/model/golden.h"
#include "tests/engine/model/model_runner.h"
#include "tests/engine/model/tested_backends.h"

namespace catserve::testing {
namespace {

constexpr double kTolerance = 1e-3;  // golden README, section 11

std::span<const float> RowOf(const std::vector<float>& array, size_t row, size_t columns) {
  return {array.data() + row * columns, columns};
}

float Largest(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

// A golden model and the backend that runs it.
class GoldenTest : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  Golden golden_ = LoadGolden(std::get<0>(GetParam()));
  ModelRunner runner_{GoldenDirectory(std::get<0>(GetParam())),
                      {.backend = std::get<1>(GetParam())}};
};

class GoldenPromptTest : public GoldenTest {};
class GoldenGreedyTest : public GoldenTest {};

TEST_P(GoldenPromptTest, PrefillGivesTheLogitsAfterThePrompt) {
  for (const GoldenCase& c : golden_.cases) {
    const std::vector<float> logits = runner_.PrefillLogits(c.chunk_size, c.prompt);
    EXPECT_LT(MaxDifference(logits, c.logits_last), kTolerance) << c.name;
  }
}

TEST_P(GoldenPromptTest, CompressorGivesTheRepresentationOfEveryChunk) {
  int compared = 0;
  for (const GoldenCase& c : golden_.cases) {
    if (c.fx.empty()) continue;
    runner_.PrefillLogits(c.chunk_size, c.prompt);
    EXPECT_LT(MaxDifference(runner_.fx(), c.fx), kTolerance * Largest(c.fx)) << c.name;
    ++compared;
  }
  EXPECT_EQ(compared > 0, runner_.geometry().compresses());
}

TEST_P(GoldenPromptTest, ScoreGivesTheLogitsAfterEveryToken) {
  const size_t columns = runner_.geometry().vocab_size;
  for (const GoldenCase& c : golden_.cases) {
    if (c.logits_all.empty()) continue;
    const auto logits = runner_.ScoreLogits(c.chunk_size, c.prompt);
    ASSERT_EQ(logits.size(), c.prompt.size());
    for (size_t i = 0; i < logits.size(); ++i) {
      EXPECT_LT(MaxDifference(logits[i], RowOf(c.logits_all, i, columns)), kTolerance)
          << c.name << " after token " << i;
    }
  }
}

TEST_P(GoldenGreedyTest, GreedyContinuationIsExact) {
  const SamplingParams greedy{.temperature = 0};
  for (const GoldenCase& c : golden_.cases) {
    if (c.greedy.empty()) continue;
    PlanWriter sequence = runner_.Sequence(1, c.chunk_size);
    StepPlan plan;
    int32_t row = sequence.Prefill(c.prompt, plan);
    std::vector<TokenId> drawn;
    while (true) {
      plan.samples.push_back(sequence.Draw(row, &greedy));
      drawn.push_back(runner_.Run(plan).samples.at(0).token.id);
      if (drawn.size() == c.greedy.size()) break;
      plan = {};
      row = sequence.Accept(plan);
    }
    EXPECT_EQ(drawn, c.greedy) << c.name;
    EXPECT_LT(MaxDifference(runner_.executor().trace().logits, c.logits_end), kTolerance) << c.name;
  }
}

std::string TestName(const ::testing::TestParamInfo<std::tuple<std::string, std::string>>& info) {
  std::string name = std::get<0>(info.param) + "_" + std::get<1>(info.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

const auto kModels = ::testing::ValuesIn(kBothLayouts);
const auto kFast = ::testing::Values(Tested().fast);
const auto kSlow = ::testing::ValuesIn(Tested().slow);

INSTANTIATE_TEST_SUITE_P(Fast, GoldenPromptTest, ::testing::Combine(kModels, kFast), TestName);
INSTANTIATE_TEST_SUITE_P(Slow, GoldenPromptTest, ::testing::Combine(kModels, kSlow), TestName);
INSTANTIATE_TEST_SUITE_P(Fast, GoldenGreedyTest, ::testing::Combine(kModels, kFast), TestName);
// One model shows that a slow backend's decoding is right too.
INSTANTIATE_TEST_SUITE_P(Slow, GoldenGreedyTest,
                         ::testing::Combine(::testing::Values("fixed-tiny"), kSlow), TestName);

TEST(ResampleColumns, GivesTheGoldenRowsAtEveryChunkSize) {
  const Golden golden = LoadGolden("adaptive-tiny");
  Checkpoint checkpoint = Checkpoint::Open(GoldenDirectory("adaptive-tiny")).value();
  const HostTensor stored = checkpoint.Tensor("f.proj_fx.weight", {128, 1024}).value();
  for (const int32_t chunk_size : {1, 2, 4, 8, 16}) {
    const std::vector<float> resampled = ResampleColumns(stored.view.Rows(0, 4), 16, chunk_size);
    const std::string name = "proj_fx_resampled.c" + std::to_string(chunk_size) + ".rows0_4";
    EXPECT_LT(MaxDifference(resampled, golden.arrays.at(name).values), 1e-7) << chunk_size;
  }
}

}  // namespace
}  // namespace catserve::testing

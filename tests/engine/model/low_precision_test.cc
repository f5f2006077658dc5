// BF16 weights and BF16 KV memory against the golden data, step by step with the golden tokens fed.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/model/golden.h"
#include "tests/engine/model/model_runner.h"
#include "tests/engine/model/tested_backends.h"

namespace catserve::testing {
namespace {

struct Precision {
  std::string name;
  WeightType weights;
  DType kv;
  // Errors of a row of logits, whose deviation is near 3, stated from measurements on the golden
  // models (their weights are large on purpose, which magnifies rounding).
  double error;      // the largest
  double rms_error;  // root of the mean square
  int demanded;      // greedy steps, of 1840, that are clear winners given such an error: of I8
                     // weights, none; what they do to a trained model is tested below
};
std::ostream& operator<<(std::ostream& out, const Precision& p) { return out << p.name; }

double RmsDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(squares / a.size());
}

class LowPrecisionTest : public ::testing::TestWithParam<Precision> {
 protected:
  void ExpectClose(const std::vector<float>& logits, const std::vector<float>& golden,
                   const std::string& where) const {
    EXPECT_LT(MaxDifference(logits, golden), GetParam().error) << where;
    EXPECT_LT(RmsDifference(logits, golden), GetParam().rms_error) << where;
  }
};

TEST_P(LowPrecisionTest, StaysWithinTheStatedErrorAndKeepsClearWinners) {
  if (!MakeBackend(Tested().fast, 1).value()->HoldsKv(GetParam().kv)) {
    GTEST_SKIP() << Tested().fast << " holds no KV memory of " << Name(GetParam().kv) << " here";
  }
  int demanded = 0;
  for (const std::string& model : kGoldenModels) {
    ModelRunner runner(
        GoldenDirectory(model),
        {.backend = Tested().fast, .weight_type = GetParam().weights, .kv_dtype = GetParam().kv});
    const Golden golden = LoadGolden(model);
    for (const GoldenCase& c : golden.cases) {
      if (c.greedy.empty()) continue;
      PlanWriter sequence = runner.Sequence(0, c.chunk_size);
      StepPlan plan;
      int32_t row = sequence.Prefill(c.prompt, plan);
      sequence.Write(c.greedy, plan);
      std::vector<float> logits;
      for (size_t i = 0; i < c.greedy.size(); ++i) {
        if (i > 0) row = sequence.Accept(plan = {});
        logits = runner.Logits(plan, {&row, 1})[0];
        if (i == 0) ExpectClose(logits, c.logits_last, model + " " + c.name + " after the prompt");
        if (c.greedy_margins[i] <= 2 * GetParam().error) continue;
        ++demanded;
        EXPECT_EQ(std::max_element(logits.begin(), logits.end()) - logits.begin(), c.greedy[i])
            << model << " " << c.name << " at token " << i;
      }
      ExpectClose(logits, c.logits_end, model + " " + c.name + " at the end");
    }
  }
  EXPECT_GE(demanded, GetParam().demanded) << "the stated error excuses too much";
}

INSTANTIATE_TEST_SUITE_P(
    Precisions, LowPrecisionTest,
    ::testing::Values(Precision{"bf16_weights", WeightType::kBF16, DType::kF32, 1.4, 0.45, 80},
                      Precision{"i8_weights", WeightType::kI8, DType::kF32, 3.6, 1.2, 0},
                      Precision{"bf16_kv", WeightType::kF32, DType::kBF16, 0.45, 0.15, 700},
                      Precision{"i8_kv", WeightType::kF32, DType::kI8, 1.0, 0.3, 200},
                      Precision{"e4m3_kv", WeightType::kF32, DType::kE4M3, 3.0, 0.95, 2},
                      Precision{"bf16_both", WeightType::kBF16, DType::kBF16, 1.4, 0.45, 80}),
    [](const auto& info) { return info.param.name; });

std::vector<double> LogSoftmax(const std::vector<float>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float z : logits) sum += std::exp(z - largest);
  std::vector<double> result;
  for (const float z : logits) result.push_back(z - largest - std::log(sum));
  return result;
}

// The golden models are untrained, and their logits so large that 4 bits say nothing of them. Here:
// nats that a trained model's predictions lose, over a text of its own likeliest tokens.
double NatsLost(WeightType weights, DType kv) {
  const std::string directory = "models/text";
  constexpr int32_t kChunkSize = 8;
  const std::string backend = Tested().fast;
  ModelRunner full(directory, {.backend = backend});
  ModelRunner held(directory, {.backend = backend, .weight_type = weights, .kv_dtype = kv});
  std::vector<TokenId> text = {300, 900, 1500, 2100};
  while (text.size() < 40) {
    const std::vector<float> logits = full.PrefillLogits(kChunkSize, text);
    text.push_back(
        static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
  }
  const auto want = full.ScoreLogits(kChunkSize, text);
  const auto got = held.ScoreLogits(kChunkSize, text);
  double lost = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const std::vector<double> p = LogSoftmax(want[i]), q = LogSoftmax(got[i]);
    for (size_t id = 0; id < p.size(); ++id) lost += std::exp(p[id]) * (p[id] - q[id]);
  }
  return lost / static_cast<double>(text.size());
}

TEST(TrainedModelTest, PredictsMuchTheSameWithWeightsOf4Bits) {
  if (!Tested().four_bits) GTEST_SKIP() << Tested().fast << " has no weights of 4 bits";
  EXPECT_LT(NatsLost(WeightType::kI4, DType::kF32), 0.02);
}

TEST(TrainedModelTest, PredictsMuchTheSameWith8BitsEverywhere) {
  EXPECT_LT(NatsLost(WeightType::kI8, DType::kI8), 0.0005);
}

}  // namespace
}  // namespace catserve::testing

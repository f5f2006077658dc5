// Emulated: drawing and scoring tokens. Draws must be the CPU's, token for token; a log-probability
// may differ in its last bits. Nothing here has run on a GPU.
#include "kernels/cuda/sample.cuh"

#include <cmath>
#include <limits>
#include <utility>

#include "kernels/cuda/score_tokens.cuh"
#include "tests/kernels/cuda/emulated.h"
#include "tests/kernels/cuda/tolerance.h"
#include "tests/kernels/sampling_oracle.h"

namespace catserve::cuda {
namespace {

using ::catserve::testing::kInfinity;
using ::catserve::testing::kNaN;
using testing::Poisoned;
using testing::Random;

constexpr int32_t kVocab = 1031;
constexpr int32_t kColumns = 1040;  // a padded vocabulary; what lies beyond is garbage

// The lists of a spec, where a kernel finds them.
struct Prepared {
  SampleRow row;
  std::vector<int32_t> bias_ids;
  std::vector<float> biases;
};

Prepared Prepare(const SampleSpec& spec) {
  Prepared p;
  for (const auto& [id, bias] : spec.logit_bias) {
    p.bias_ids.push_back(id);
    p.biases.push_back(bias);
  }
  const float scale = 1.0f / spec.temperature * 1.44269504f;
  const double least = 0x1p40 * double{std::min(spec.min_p, 1.0f)};
  p.row = {.greedy = spec.temperature == 0 ? 1 : 0,
           .scale = std::min(scale, std::numeric_limits<float>::max()),
           .repetition_penalty = spec.repetition_penalty,
           .presence_penalty = spec.presence_penalty,
           .frequency_penalty = spec.frequency_penalty,
           .penalizes = spec.repetition_penalty != 1 || spec.presence_penalty != 0 ||
                        spec.frequency_penalty != 0,
           .top_k = spec.top_k,
           .top_p = spec.top_p,
           .least = least >= 1 ? static_cast<uint64_t>(least) : 0,
           .word = RandomWord(spec.seed, spec.choice, spec.position),
           .bias_ids = p.bias_ids.data(),
           .biases = p.biases.data(),
           .bias_count = static_cast<int32_t>(p.biases.size()),
           .forbidden = spec.forbidden.data(),
           .forbidden_count = static_cast<int32_t>(spec.forbidden.size()),
           .prompt = spec.prompt.data(),
           .prompt_count = static_cast<int32_t>(spec.prompt.size()),
           .generated = spec.generated.data(),
           .generated_count = static_cast<int32_t>(spec.generated.size())};
  return p;
}

// The same logits for every spec: a row each, drawn in one launch; then by the slow oracle.
void ExpectOracleDraws(const std::vector<float>& logits, const std::vector<SampleSpec>& specs) {
  const auto count = static_cast<int64_t>(specs.size());
  const auto vocab = static_cast<int32_t>(logits.size());
  std::vector<Prepared> prepared(specs.size());
  std::vector<SampleRow> rows;
  std::vector<float> all(count * kColumns, kInfinity);
  for (int64_t i = 0; i < count; ++i) {
    prepared[i] = Prepare(specs[i]);
    rows.push_back(prepared[i].row);
    std::copy(logits.begin(), logits.end(), all.begin() + i * kColumns);
  }
  for (const uint32_t seed : {0u, 8u, 9u}) {
    auto z = Poisoned<float>(count * vocab);
    auto counts = Poisoned<uint32_t>(count * vocab);
    std::vector<int32_t> ids(count + 1, -7);
    const auto rows_count = static_cast<int32_t>(count);
    const SampleArgs args{.logits = all.data(),
                          .stride = kColumns,
                          .vocab_size = vocab,
                          .rows = rows.data(),
                          .count = &rows_count,
                          .z = z.data(),
                          .counts = counts.data(),
                          .ids = ids.data()};
    emulator::Launch(SampleShape(rows_count + 1), seed, [&] { Sample(args); });
    EXPECT_EQ(ids[count], -7) << "a spare block drew";
    for (int64_t i = 0; i < count; ++i) {
      EXPECT_EQ(ids[i], ::catserve::testing::OracleDraw(logits, specs[i])) << "spec " << i;
    }
  }
}

TEST(EmulatedSample, DrawsTheOraclesTokensForEveryRule) {
  Random random(2);
  const std::vector<float> logits = random.Normal(kVocab, 3.0f);
  std::vector<SampleSpec> specs = {{},
                                   {.temperature = 1},
                                   {.temperature = 0.7f, .top_k = 5},
                                   {.temperature = 1, .top_k = 1},
                                   {.temperature = 1, .top_k = 5000},
                                   {.temperature = 1.3f, .top_p = 0.9f},
                                   {.temperature = 1, .top_p = 0},
                                   {.temperature = 1, .top_p = kNaN},
                                   {.temperature = 2, .min_p = 0.05f},
                                   {.temperature = 3, .top_k = 50, .top_p = 0.8f, .min_p = 0.01f},
                                   {.temperature = 1e-6f, .top_k = 20},
                                   {.temperature = 1e30f, .top_k = 300}};
  for (size_t i = 0; i < specs.size(); ++i) {
    specs[i].seed = i;
    specs[i].position = 100 - i;
  }
  ExpectOracleDraws(logits, specs);
}

TEST(EmulatedSample, AmongEqualLogitsTheLowerIdsAreKept) {
  // Cuts fall within the equal ones; zeros of both signs are equal.
  std::vector<float> logits(700);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = i % 3 == 0 ? 0.0f : -0.0f;
  logits[600] = 1.0f;
  std::vector<SampleSpec> specs;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    specs.push_back({.temperature = 1, .top_k = 123, .seed = seed});
    specs.push_back({.temperature = 1, .top_p = 0.3f, .seed = seed});
  }
  ExpectOracleDraws(logits, specs);
}

TEST(EmulatedSample, PenaltiesBiasesAndForbiddenIdsAreThoseOfTheCpu) {
  Random random(8);
  std::vector<float> logits = random.Normal(kVocab, 2.0f);
  logits[3] = kNaN;
  logits[4] = kInfinity;
  logits[5] = -kInfinity;
  const std::vector<int32_t> prompt = {1, 2, 3, 3, 900, -1, kVocab};
  const std::vector<int32_t> generated = {4, 4, 4, 2, 77, kVocab + 5};
  const std::vector<std::pair<int32_t, float>> biases = {{9, 3.0f},  {9, 0.1f}, {9 + 512, 1e30f},
                                                         {2, -1.5f}, {-3, 1},   {kVocab, 1}};
  const std::vector<int32_t> forbidden = {4, 521, 4, -2, kVocab};
  std::vector<int32_t> everything;
  for (int32_t id = 0; id < kVocab; ++id) everything.push_back(id);
  std::vector<SampleSpec> specs;
  for (const float temperature : {0.0f, 1.0f}) {
    specs.push_back({.temperature = temperature, .logit_bias = biases});
    specs.push_back({.temperature = temperature, .forbidden = forbidden});
    specs.push_back({.temperature = temperature, .logit_bias = biases, .forbidden = everything});
    specs.push_back({.temperature = temperature,
                     .repetition_penalty = 1.3f,
                     .presence_penalty = 0.4f,
                     .frequency_penalty = 0.3f,
                     .logit_bias = biases,
                     .forbidden = forbidden,
                     .prompt = prompt,
                     .generated = generated});
  }
  ExpectOracleDraws(logits, specs);
}

TEST(EmulatedSample, NoSeenIdEscapesItsPenalty) {
  // Equal logits: the one id that was not seen is drawn, being the last, unless a lower escapes.
  const std::vector<float> logits(kVocab, 1.0f);
  std::vector<int32_t> seen;
  for (int32_t id = kVocab - 2; id >= 0; --id) seen.push_back(id);
  ExpectOracleDraws(logits, {{.repetition_penalty = 2, .prompt = seen},
                             {.presence_penalty = 0.5f, .generated = seen},
                             {.frequency_penalty = 0.5f, .prompt = seen, .generated = seen}});
}

TEST(EmulatedSample, TheSmallestAndTheLargestWordDrawTheFirstAndTheLastKeptId) {
  std::vector<float> logits(kColumns, 0.0f);
  for (const int32_t id : {70, 500, 1000}) logits[id] = 2.0f;
  Prepared prepared = Prepare({.temperature = 1, .top_k = 3});
  for (const auto& [word, want] : {std::pair(uint64_t{0}, 70), std::pair(~uint64_t{0}, 1000)}) {
    prepared.row.word = word;
    auto z = Poisoned<float>(kVocab);
    auto counts = Poisoned<uint32_t>(kVocab);
    int32_t id = -7;
    const int32_t count = 1;
    const SampleArgs args{.logits = logits.data(),
                          .stride = kColumns,
                          .vocab_size = kVocab,
                          .rows = &prepared.row,
                          .count = &count,
                          .z = z.data(),
                          .counts = counts.data(),
                          .ids = &id};
    emulator::Launch(SampleShape(1), 1, [&] { Sample(args); });
    EXPECT_EQ(id, want);
  }
}

TEST(EmulatedSample, WeightsAreThoseOfTheRule) {
  for (float y = 0; y > -41; y -= 0.00371f) ASSERT_EQ(Weight(y), SampleWeight(y)) << y;
  EXPECT_EQ(Weight(kNaN), 0);
  EXPECT_EQ(Weight(0), kSampleWeightMax);
}

TEST(EmulatedScoreTokens, LogprobsAreTheCpusAndTheLikeliestInItsOrder) {
  Random random(6);
  constexpr int64_t kRows = 4;
  constexpr int32_t kTop = 5;
  std::vector<float> logits(kRows * kColumns, kNaN);
  for (int64_t row = 0; row < kRows; ++row) {
    const auto values = random.Normal(kVocab, 4.0f);
    std::copy(values.begin(), values.end(), logits.begin() + row * kColumns);
  }
  std::fill_n(logits.begin() + 2 * kColumns, kVocab, 0.25f);  // ties go to the lowest ids
  logits[3 * kColumns + 8] = kInfinity;
  logits[3 * kColumns + 9] = kNaN;
  const std::vector<int32_t> targets = {0, kVocab - 1, 500, 8};
  const std::vector<int32_t> top_n = {kTop, 0, 3, 1};
  const auto cpu = ::catserve::testing::Make("cpu-reference", 1);
  std::vector<TokenDraw> want(kRows);
  cpu->ScoreTokens(want, testing::Tensor(*cpu, {kRows, kColumns}, logits), kVocab, targets, top_n);
  for (const uint32_t seed : {0u, 2u}) {
    auto logprobs = Poisoned<float>(kRows);
    std::vector<int32_t> top_ids(kRows * kTop, -7);
    auto top_logprobs = Poisoned<float>(kRows * kTop);
    const ScoreTokensArgs args{.logits = logits.data(),
                               .stride = kColumns,
                               .vocab_size = kVocab,
                               .top_max = kTop,
                               .targets = targets.data(),
                               .top_n = top_n.data(),
                               .logprobs = logprobs.data(),
                               .top_ids = top_ids.data(),
                               .top_logprobs = top_logprobs.data()};
    emulator::Launch(ScoreTokensShape(kRows), seed, [&] { ScoreTokens(args); });
    for (int64_t row = 0; row < kRows; ++row) {
      EXPECT_NEAR(logprobs[row], want[row].logprob, testing::kLogprobError) << row;
      ASSERT_EQ(want[row].top.size(), top_n[row]);
      for (int32_t n = 0; n < kTop; ++n) {
        const int64_t at = row * kTop + n;
        const auto [id, logprob] =
            n < top_n[row] ? want[row].top[n] : std::pair<int32_t, float>(0, 0.0f);
        EXPECT_EQ(top_ids[at], id) << row << ' ' << n;
        EXPECT_NEAR(top_logprobs[at], logprob, testing::kLogprobError);
      }
    }
  }
}

}  // namespace
}  // namespace catserve::cuda

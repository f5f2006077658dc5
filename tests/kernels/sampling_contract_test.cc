// Drawing and scoring tokens: the exact rule, and that it draws from the right distribution.
#include <cmath>
#include <list>
#include <numeric>
#include <span>

#include "tests/kernels/device.h"
#include "tests/kernels/sampling_oracle.h"

namespace catserve {
namespace {

using testing::kInfinity;
using testing::kNaN;
using testing::OnEveryBackend;
using testing::OracleDraw;
using testing::Random;
using testing::Repeats;
using testing::Tensor;

// Token ids in the backend's memory.
class Ids {
 public:
  Ids(Backend& backend, std::span<const int32_t> ids)
      : held_(backend, DType::kI32, {std::ssize(ids)}), count_(ids.size()) {
    held_.Write(ids.data(), static_cast<int64_t>(ids.size_bytes()));
  }
  int32_t* data() const { return static_cast<int32_t*>(held_.view().data); }
  std::span<const int32_t> span() const { return {data(), count_}; }
  std::vector<int32_t> Read() const { return held_.ReadAs<int32_t>(); }

 private:
  Tensor held_;
  size_t count_;
};

class SampleContract : public OnEveryBackend {
 protected:
  // Draws from the same logits once per spec. Two columns beyond the vocabulary hold a trap.
  // A spec's prompt and generated ids are taken from the host.
  std::vector<TokenDraw> Draw(const std::vector<float>& logits, std::vector<SampleSpec> specs) {
    std::list<Ids> ids;
    for (SampleSpec& spec : specs) {
      spec.prompt = ids.emplace_back(*backend_, spec.prompt).span();
      spec.generated = ids.emplace_back(*backend_, spec.generated).span();
    }
    const int64_t vocab = static_cast<int64_t>(logits.size());
    std::vector<float> rows;
    for (size_t i = 0; i < specs.size(); ++i) {
      rows.insert(rows.end(), logits.begin(), logits.end());
      rows.insert(rows.end(), {1e9f, kNaN});
    }
    Tensor tensor(*backend_, {static_cast<int64_t>(specs.size()), vocab + 2}, rows);
    std::vector<TokenDraw> draws(specs.size());
    backend_->Sample(draws, tensor, static_cast<int32_t>(vocab), specs);
    backend_->Synchronize();
    const std::vector<float> after = tensor.Read();
    EXPECT_EQ(std::memcmp(after.data(), rows.data(), rows.size() * 4), 0) << "logits changed";
    return draws;
  }

  int32_t DrawOne(const std::vector<float>& logits, const SampleSpec& spec) {
    return Draw(logits, {spec})[0].id;
  }
};

class ScoreContract : public OnEveryBackend {};

class StepsContract : public OnEveryBackend {
 protected:
  // Logits of two rows whose likeliest token is `best`.
  static std::vector<float> Favour(int32_t best) {
    std::vector<float> logits(2 * kVocab, 0.5f);
    logits[best] = logits[kVocab + best] = 3.0f;
    return logits;
  }
  static constexpr int32_t kVocab = 40;
};

TEST_P(SampleContract, GreedyTakesTheLargestAndTheLowestIdOnTies) {
  EXPECT_EQ(DrawOne({1, 5, 2}, {}), 1);
  EXPECT_EQ(DrawOne({0, 3, 3, 3}, {}), 1);
  EXPECT_EQ(DrawOne({-0.0f, 0.0f}, {}), 0);
  EXPECT_EQ(DrawOne({-7}, {}), 0);
  for (int32_t best = 0; best < 37; ++best) {
    std::vector<float> logits(37, -1.0f);
    logits[best] = 1.0f;
    logits[36] = std::max(logits[36], 1.0f);
    EXPECT_EQ(DrawOne(logits, {}), best);
  }
}

TEST_P(SampleContract, GreedySurvivesNonFiniteLogits) {
  EXPECT_EQ(DrawOne({kNaN, 1, 2, kNaN}, {}), 2);
  EXPECT_EQ(DrawOne({kNaN, kNaN}, {}), 0);
  EXPECT_EQ(DrawOne({-kInfinity, -5, kInfinity}, {}), 2);
}

TEST_P(SampleContract, DrawsSurviveNonFiniteLogits) {
  for (uint64_t position = 0; position < Repeats(50, 5); ++position) {
    const SampleSpec spec{.temperature = 1, .position = position};
    EXPECT_EQ(DrawOne({kNaN, 1, -kInfinity, kNaN}, spec), 1);
    EXPECT_EQ(DrawOne({3, kInfinity, 2}, spec), 1);
    EXPECT_LT(DrawOne({kNaN, kNaN, -kInfinity}, spec), 3);
  }
}

TEST_P(SampleContract, ExtremeTemperaturesAreTheirLimits) {
  for (uint64_t position = 0; position < Repeats(50, 5); ++position) {
    for (const float cold : {1e-45f, 1e-38f, 1e-6f}) {
      EXPECT_EQ(DrawOne({1, 1.5f, 1}, {.temperature = cold, .position = position}), 1);
    }
  }
  std::vector<int> counts(3);
  const int draws = Repeats(3000, 45);
  for (int position = 0; position < draws; ++position) {
    const auto at = static_cast<uint64_t>(position);
    ++counts[DrawOne({-90, 0, 90}, {.temperature = 1e38f, .position = at})];
  }
  const double five_deviations = 5 * std::sqrt(draws * 2.0 / 9.0);
  for (const int count : counts) EXPECT_NEAR(count, draws / 3.0, five_deviations);
}

TEST_P(SampleContract, ForbiddenIdsAreDrawnOnlyIfAllAreForbidden) {
  const std::vector<int32_t> first_two = {0, 1, 1};
  const std::vector<int32_t> all = {2, 0, 1};
  for (uint64_t position = 0; position < Repeats(40, 4); ++position) {
    for (const float temperature : {0.0f, 1.0f, 100.0f}) {
      SampleSpec spec{.temperature = temperature, .forbidden = first_two, .position = position};
      EXPECT_EQ(DrawOne({9, 8, -50}, spec), 2);
      EXPECT_EQ(DrawOne({9, 8, -kInfinity}, spec), 2);
      EXPECT_EQ(DrawOne({kNaN, 8, kNaN}, spec), 2);
    }
  }
  EXPECT_EQ(DrawOne({1, 3, 2}, {.forbidden = all}), 1);
}

TEST_P(SampleContract, BiasAndPenaltiesChangeTheChoice) {
  const std::vector<std::pair<int32_t, float>> bias = {{2, 10.0f}};
  EXPECT_EQ(DrawOne({1, 3, 2}, {.logit_bias = bias}), 2);
  const std::vector<int32_t> seen = {1};
  const std::vector<int32_t> twice = {1, 1};
  EXPECT_EQ(DrawOne({1, 3, 2}, {.repetition_penalty = 2, .prompt = seen}), 2);
  EXPECT_EQ(DrawOne({-3, -2.5f, -3}, {.repetition_penalty = 2, .generated = seen}), 0);
  EXPECT_EQ(DrawOne({1, 3, 2}, {.presence_penalty = 1.5f, .generated = seen}), 2);
  EXPECT_EQ(DrawOne({1, 3, 2}, {.presence_penalty = 1.5f, .prompt = seen}), 1)
      << "presence is of generated ids";
  EXPECT_EQ(DrawOne({1, 3, 2}, {.frequency_penalty = 0.7f, .generated = seen}), 1);
  EXPECT_EQ(DrawOne({1, 3, 2}, {.frequency_penalty = 0.7f, .generated = twice}), 2);
}

TEST_P(SampleContract, IdsOutsideTheVocabularyAreIgnored) {
  const std::vector<std::pair<int32_t, float>> bias = {{-1, 50.0f}, {3, 50.0f}, {1 << 30, 50.0f}};
  const std::vector<int32_t> ids = {-5, 3, 4, 1 << 30};
  EXPECT_EQ(DrawOne({1, 3, 2}, {.repetition_penalty = 9,
                                .logit_bias = bias,
                                .forbidden = ids,
                                .prompt = ids,
                                .generated = ids}),
            1);
}

// Every combination of settings, against the rule written with a sort.
TEST_P(SampleContract, AgreesWithTheSortedOracle) {
  Random random(31);
  for (const int32_t vocab : {1, 2, 7, 8, 33, 500, 3001}) {
    for (int trial = 0; trial < Repeats(60, 9); ++trial) {
      std::vector<float> logits = random.Normal(vocab, 3.0f);
      for (int32_t i = 0; trial % 3 == 0 && i < vocab / 4; ++i) {
        logits[random.Below(vocab)] = std::round(logits[random.Below(vocab)]);  // ties
      }
      if (trial % 7 == 0) logits[random.Below(vocab)] = kNaN;
      if (trial % 11 == 0) logits[random.Below(vocab)] = -kInfinity;
      if (trial % 13 == 5) std::fill(logits.begin(), logits.end(), 2.5f);
      std::vector<int32_t> prompt, generated, forbidden;
      for (int i = 0; i < 20; ++i) prompt.push_back(random.Below(vocab));
      for (int i = 0; i < 20; ++i) generated.push_back(random.Below(std::min(vocab, 9)));
      for (int i = 0; i < trial % 3; ++i) forbidden.push_back(random.Below(vocab));
      const std::vector<std::pair<int32_t, float>> bias = {{random.Below(vocab), 4.0f}};
      SampleSpec spec;
      const float temperatures[] = {0.0f, 0.3f, 1.0f, 1.7f, 25.0f};
      spec.temperature = temperatures[trial % 5];
      spec.top_k = trial % 2 == 0 ? 1 + random.Below(60) : 0;
      spec.top_p = trial % 4 == 1 ? 1.0f : 0.01f * static_cast<float>(random.Below(100));
      spec.min_p = trial % 5 == 2 ? 0.002f * static_cast<float>(random.Below(100)) : 0.0f;
      if (trial % 2 == 1) spec.repetition_penalty = 1.3f;
      if (trial % 6 == 2) spec.presence_penalty = 0.7f;
      if (trial % 6 == 4) spec.frequency_penalty = -0.2f;
      if (trial % 5 == 3) spec.logit_bias = bias;
      spec.forbidden = forbidden;
      spec.prompt = prompt;
      spec.generated = generated;
      spec.seed = static_cast<uint64_t>(trial) << 40;
      std::vector<SampleSpec> specs(4, spec);
      for (uint64_t i = 0; i < specs.size(); ++i) specs[i].position = i;
      const std::vector<TokenDraw> draws = Draw(logits, specs);
      for (size_t i = 0; i < specs.size(); ++i) {
        ASSERT_EQ(draws[i].id, OracleDraw(logits, specs[i])) << vocab << ' ' << trial << ' ' << i;
      }
    }
  }
}

TEST_P(SampleContract, ReplacesAsManyIdsAsThereAreTiesWithTheLastOfTopK) {
  // Of four equal ids after the best, top-k 3 keeps the two lowest.
  const std::vector<float> logits = {1, 1, 2, 1, 1};
  std::vector<int> counts(5);
  for (uint64_t position = 0; position < Repeats(300, 40); ++position) {
    ++counts[DrawOne(logits, {.temperature = 1, .top_k = 3, .position = position})];
  }
  EXPECT_GT(counts[0], 0);
  EXPECT_GT(counts[1], 0);
  EXPECT_GT(counts[2], counts[0]);
  EXPECT_EQ(counts[3] + counts[4], 0);
}

// Pearson's chi-square with 9 degrees of freedom: 27.9 is exceeded once in 1,000 seeds.
TEST_P(SampleContract, DrawsFromTheSoftmax) {
  const std::vector<float> logits = {0, 1, 2, -1, 0.5f, 3, 2.5f, -2, 1.5f, 0.2f};
  const float temperature = 0.8f;
  const int64_t batch = 500, batches = Repeats(60, 1);
  std::vector<double> p;
  for (const float logit : logits) p.push_back(std::exp(double{logit} / temperature));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  std::vector<int64_t> counts(logits.size());
  for (int64_t b = 0; b < batches; ++b) {
    std::vector<SampleSpec> specs(batch, {.temperature = temperature, .seed = 7});
    for (int64_t i = 0; i < batch; ++i) specs[i].position = b * batch + i;
    for (const TokenDraw& draw : Draw(logits, specs)) ++counts[draw.id];
  }
  double chi_square = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double want = p[i] / sum * batch * batches;
    chi_square += (counts[i] - want) * (counts[i] - want) / want;
  }
  EXPECT_LT(chi_square, 27.9);
}

TEST_P(SampleContract, RandomnessIsKeyedBySeedChoiceAndPositionAlone) {
  Random random(41);
  const std::vector<float> logits = random.Normal(200);
  const SampleSpec base{.temperature = 1, .seed = 5, .choice = 1, .position = 9};
  std::vector<SampleSpec> specs(4, base);
  specs[1].seed = 6;
  specs[2].choice = 2;
  specs[3].position = 10;
  for (int i = 0; i < Repeats(20, 3); ++i) {
    for (SampleSpec& spec : specs) spec.seed += 1000;
    const std::vector<TokenDraw> together = Draw(logits, specs);
    for (size_t row = 0; row < specs.size(); ++row) {
      EXPECT_EQ(DrawOne(logits, specs[row]), together[row].id) << "depends on the batch";
    }
  }
  // Draws under each key: two keys that shared their randomness would agree everywhere.
  const int draws = Repeats(64, 12);
  for (int other = 1; other < 4; ++other) {
    int equal = 0;
    for (uint64_t i = 0; i < draws; ++i) {
      SampleSpec a = specs[0], b = specs[other];
      a.seed += i << 32;
      b.seed += i << 32;
      equal += DrawOne(logits, a) == DrawOne(logits, b);
    }
    EXPECT_LT(equal, draws / 4) << "key " << other;
  }
}

TEST_P(SampleContract, LogprobsAreOfTheModelBeforeAnySetting) {
  const std::vector<float> logits = {1, 4, 2, 4, kNaN};
  const std::vector<int32_t> forbidden = {1};
  const TokenDraw draw = Draw(logits, {{.temperature = 0,
                                        .repetition_penalty = 3,
                                        .forbidden = forbidden,
                                        .prompt = forbidden,
                                        .logprobs = 3}})[0];
  const double sum = std::log(std::exp(1.0) + 2 * std::exp(4.0) + std::exp(2.0));
  EXPECT_EQ(draw.id, 3);
  EXPECT_NEAR(draw.logprob, 4 - sum, 1e-6);
  ASSERT_EQ(draw.top.size(), 3);
  EXPECT_EQ(draw.top[0].first, 1);
  EXPECT_EQ(draw.top[1].first, 3);
  EXPECT_EQ(draw.top[2].first, 2);
  EXPECT_NEAR(draw.top[2].second, 2 - sum, 1e-6);
}

TEST_P(SampleContract, LogprobsComeInTheNumberAskedFor) {
  const std::vector<float> logits = {1, 4, 2};
  EXPECT_TRUE(Draw(logits, {{.logprobs = -1}})[0].top.empty());
  EXPECT_TRUE(Draw(logits, {{.logprobs = 0}})[0].top.empty());
  EXPECT_LT(Draw(logits, {{.logprobs = 0}})[0].logprob, -0.1f);
  EXPECT_EQ(Draw(logits, {{.logprobs = 99}})[0].top.size(), 3);
}

TEST_P(ScoreContract, MatchesDoublePrecision) {
  Random random(51);
  const int64_t rows = 5, vocab = 2003;
  std::vector<float> logits = random.Normal(rows * (vocab + 3), 4.0f);
  std::vector<int32_t> targets, top_n;
  for (int64_t i = 0; i < rows; ++i) {
    targets.push_back(random.Below(vocab));
    top_n.push_back(static_cast<int32_t>(i * 4));
    logits[i * (vocab + 3) + vocab] = 1e9f;  // beyond the vocabulary
  }
  std::vector<TokenDraw> draws(rows);
  const Ids on_device(*backend_, targets);
  backend_->ScoreTokens(draws, Tensor(*backend_, {rows, vocab + 3}, logits), vocab,
                        on_device.span(), top_n);
  backend_->Synchronize();
  for (int64_t i = 0; i < rows; ++i) {
    const float* row = logits.data() + i * (vocab + 3);
    double sum = 0;
    for (int64_t id = 0; id < vocab; ++id) sum += std::exp(double{row[id]});
    EXPECT_EQ(draws[i].id, targets[i]);
    EXPECT_NEAR(draws[i].logprob, row[targets[i]] - std::log(sum), 3e-6);
    std::vector<int32_t> order(vocab);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return row[a] > row[b]; });
    ASSERT_EQ(draws[i].top.size(), static_cast<size_t>(top_n[i]));
    for (int32_t n = 0; n < top_n[i]; ++n) {
      EXPECT_EQ(draws[i].top[n].first, order[n]);
      EXPECT_NEAR(draws[i].top[n].second, row[order[n]] - std::log(sum), 3e-6);
    }
  }
}

// Nobody waits between the draws: the second's penalty is of the token that the first drew.
TEST_P(StepsContract, ADrawnIdIsThereForTheNextDraw) {
  const Tensor logits(*backend_, {2, kVocab}, Favour(7));
  const Ids histories(*backend_, std::vector<int32_t>(6, -1));  // of two slots
  const SampleSpec greedy, sampled{.temperature = 1, .top_k = 1};
  std::vector<std::vector<TokenDraw>> draws(3, std::vector<TokenDraw>(2));
  for (int step = 0; step < 3; ++step) {
    std::vector<SampleSpec> specs = {greedy, sampled};
    for (int slot = 0; slot < 2; ++slot) {
      specs[slot].presence_penalty = 10;
      specs[slot].generated = histories.span().subspan(3 * slot, step);
      specs[slot].drawn_at = histories.data() + 3 * slot + step;
    }
    backend_->Sample(draws[step], logits, kVocab, specs);
    backend_->Submit();
  }
  backend_->Synchronize();
  EXPECT_EQ(histories.Read(), (std::vector<int32_t>{7, 0, 1, 7, 0, 1}));
  for (int step = 0; step < 3; ++step) {
    EXPECT_EQ(draws[step][0].id, histories.Read()[step]);
    EXPECT_EQ(draws[step][1].id, histories.Read()[3 + step]);
  }
}

// Three steps are given before the first is waited for, more than any backend has room for.
TEST_P(StepsContract, EveryStepHasItsOwnResults) {
  std::list<Tensor> logits;
  std::vector<std::vector<TokenDraw>> draws(3), scores(3);
  std::vector<int64_t> submitted;
  for (int step = 0; step < 3; ++step) {
    logits.emplace_back(*backend_, std::initializer_list<int64_t>{2, kVocab}, Favour(10 + step));
  }
  const Ids targets(*backend_, std::vector<int32_t>{3, 4, 5, 6});
  auto of_step = logits.begin();
  for (int step = 0; step < 3; ++step, ++of_step) {
    draws[step].resize(2);
    scores[step].resize(2);
    const std::vector<SampleSpec> specs(2, {.logprobs = step});
    backend_->Sample(draws[step], *of_step, kVocab, specs);
    backend_->ScoreTokens(scores[step], *of_step, kVocab, targets.span().subspan(step, 2),
                          std::vector<int32_t>{1, 0});
    submitted.push_back(backend_->Submit());
  }
  for (int step = 0; step < 3; ++step) {
    backend_->Await(submitted[step]);
    for (int row = 0; row < 2; ++row) {
      EXPECT_EQ(draws[step][row].id, 10 + step);
      EXPECT_EQ(draws[step][row].top.size(), step);
      EXPECT_EQ(scores[step][row].id, 3 + step + row);
    }
    ASSERT_EQ(scores[step][0].top.size(), 1);
    EXPECT_EQ(scores[step][0].top[0].first, 10 + step);
  }
}

CATSERVE_ON_EVERY_BACKEND(SampleContract);
CATSERVE_ON_EVERY_BACKEND(StepsContract);
CATSERVE_ON_EVERY_BACKEND(ScoreContract);

}  // namespace
}  // namespace catserve

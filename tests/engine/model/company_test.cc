// The real model under the real scheduler: a request's tokens and their log-probabilities are
// bitwise those it gets alone, whatever shares its memory and its steps, and when results come.
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/model.h"
#include "engine/model/model_executor.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "tests/engine/model/core.h"
#include "tests/engine/model/golden.h"
#include "tests/engine/model/model_runner.h"

namespace catserve::testing {
namespace {

std::vector<TokenId> RandomText(int length, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> text;
  for (int i = 0; i < length; ++i) text.push_back(static_cast<TokenId>(random() % 500));
  return text;
}

std::vector<TokenId> Joined(std::vector<TokenId> a, const std::vector<TokenId>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// An executor whose results come one step late, as those of a device do.
class OneStepLate final : public StepExecutor {
 public:
  explicit OneStepLate(std::unique_ptr<StepExecutor> executor) : executor_(std::move(executor)) {}

  void Launch(const StepPlan& plan) override {
    executor_->Launch(plan);
    results_.push_back(executor_->Collect());
  }
  StepResult Collect() override {
    StepResult oldest = std::move(results_.front());
    results_.pop_front();
    return oldest;
  }
  int PipelineDepth() const override { return 1; }

 private:
  std::unique_ptr<StepExecutor> executor_;
  std::deque<StepResult> results_;
};

struct Setting {
  std::string model;
  DType kv_dtype = DType::kF32;
  bool one_step_late = false;
};
std::ostream& operator<<(std::ostream& out, const Setting& s) {
  return out << s.model << " with KV in " << Name(s.kv_dtype)
             << (s.one_step_late ? ", one step late" : "");
}

class CompanyTest : public ::testing::TestWithParam<Setting> {
 protected:
  static inline const ScheduleLimits kRoomy{.slots = 8, .kv_pages = 200, .step_rows_max = 512};

  Core MakeCore(const ScheduleLimits& limits = kRoomy) {
    return MakeCore(limits, GetParam().one_step_late);
  }
  Core MakeCore(const ScheduleLimits& limits, bool one_step_late) {
    const DType kv_dtype = GetParam().kv_dtype;
    std::unique_ptr<StepExecutor> executor =
        ModelExecutor::Create(*model_, *backend_,
                              {.slots = limits.slots,
                               .kv_pages = limits.kv_pages,
                               .kv_dtype = kv_dtype,
                               .step_rows_max = limits.step_rows_max})
            .value();
    if (one_step_late) executor = std::make_unique<OneStepLate>(std::move(executor));
    return Core(Geometry(model_->config(), kv_dtype), limits, std::move(executor));
  }

  int32_t ChunkSize(int32_t wanted) const {
    const std::vector<int32_t>& sizes = model_->config().chunk_sizes;
    if (sizes.empty()) return 0;
    return std::find(sizes.begin(), sizes.end(), wanted) == sizes.end() ? sizes.back() : wanted;
  }

  // Sampled, so that the log-probabilities and the randomness count.
  Request Generate(std::vector<TokenId> prompt, int32_t max_tokens, int32_t chunk_size = 4) {
    Request request;
    request.prompt = std::move(prompt);
    request.budget.chunk_size = ChunkSize(chunk_size);
    request.sampling.seed = 5;
    request.sampling.logprobs = 2;
    request.sampling.repetition_penalty = 1.2f;
    request.stop.max_tokens = max_tokens;
    return request;
  }

  void ExpectSame(const Story& story, const Story& alone) {
    ASSERT_EQ(story.tokens.size(), alone.tokens.size());
    for (size_t c = 0; c < story.tokens.size(); ++c) {
      ASSERT_EQ(story.tokens[c].size(), alone.tokens[c].size());
      for (size_t i = 0; i < story.tokens[c].size(); ++i) {
        EXPECT_EQ(story.tokens[c][i].token.id, alone.tokens[c][i].token.id) << "token " << i;
        EXPECT_EQ(story.tokens[c][i].token.logprob, alone.tokens[c][i].token.logprob);
      }
    }
  }
  void ExpectAsAlone(const Story& story, const Request& request) {
    ExpectSame(story, MakeCore(kRoomy, /*one_step_late=*/false).Tell(request));
  }

  std::unique_ptr<Backend> backend_ = MakeBackend("cpu", 1).value();
  std::unique_ptr<Model> model_ = Model::Load(GoldenDirectory(GetParam().model), *backend_).value();
};

TEST_P(CompanyTest, APrefixFoundInTheCacheChangesNoBit) {
  Core core = MakeCore();
  core.Tell(Generate(RandomText(150, 1), 10));
  for (const int alike : {5, 63, 64, 100, 149, 150}) {  // in the middle of pages and chunks
    const Request next =
        Generate(Joined(std::vector(RandomText(alike, 1)), RandomText(20, 100 + alike)), 12);
    const Story story = core.Tell(next);
    if (alike >= 63) {
      EXPECT_GT(story.started->cached_tokens, alike / 2) << alike;
    }
    ExpectAsAlone(story, next);
  }
}

TEST_P(CompanyTest, TheNextTurnOfAConversationGoesOnFromTheLast) {
  Core core = MakeCore();
  const Request first = Generate(RandomText(60, 2), 50);
  const Story answer = core.Tell(first);
  const Request second = Generate(Joined(Joined(first.prompt, answer.ids()), RandomText(9, 3)), 20);
  const Story story = core.Tell(second);
  EXPECT_GE(story.started->cached_tokens, 60 + 50 - 8);
  ExpectAsAlone(story, second);
}

TEST_P(CompanyTest, ChoicesThatShareTheirPromptEqualThoseThatDoNot) {
  Request request = Generate(RandomText(90, 4), 15);
  request.choices = 3;
  Core sharing = MakeCore();
  const Story story = sharing.Tell(request);
  request.bypass_prefix_cache = true;
  Core apart = MakeCore();
  ExpectSame(story, apart.Tell(request));
  EXPECT_NE(story.ids(0), story.ids(1));
  const int64_t shared = story.finished->usage.chunks_compressed;
  const int64_t computed = apart.story(1).finished->usage.chunks_compressed;
  EXPECT_TRUE(shared < computed || !model_->config().compresses());
}

TEST_P(CompanyTest, PiecesAndOthersInTheBatchChangeNoBit) {
  Core core = MakeCore({.slots = 4,
                        .kv_pages = 60,
                        .step_rows_max = 64,
                        .step_tokens_max = 50,
                        .compressor_token_rows = 0.3});
  std::vector<Request> requests;
  std::vector<RequestKey> keys;
  for (int i = 0; i < 5; ++i) {
    requests.push_back(Generate(RandomText(40 + 30 * i, 10 + i), 20, 1 << i));
    keys.push_back(core.Add(requests.back()));
    core.Steps(3);
  }
  core.Run();
  for (int i = 0; i < 5; ++i) ExpectAsAlone(core.story(keys[i]), requests[i]);
}

TEST_P(CompanyTest, APreemptedRequestGoesOnWithTheSameBits) {
  // Its reader is behind, and who waits needs the memory.
  const int64_t pages = GetParam().model == "fixed-tiny" ? 4 : 16;  // 8 tokens to an entry, or one
  Core core = MakeCore({.slots = 4, .kv_pages = pages, .step_rows_max = 256});
  const Request first = Generate(RandomText(100, 20), 40, 1);
  const RequestKey a = core.Add(first);
  core.Steps(10);
  core.scheduler().SetPaused(a, true);
  const Request second = Generate(RandomText(200, 21), 30, 1);
  const RequestKey b = core.Add(second);
  core.Steps(20);
  core.scheduler().SetPaused(a, false);
  core.Run();
  EXPECT_EQ(core.story(a).finished->usage.preemptions, 1);
  ExpectAsAlone(core.story(a), first);
  ExpectAsAlone(core.story(b), second);
}

class AdaptiveCompanyTest : public CompanyTest {};  // with chunk sizes to choose from

TEST_P(AdaptiveCompanyTest, AfterAChangeOfBudgetTokensAreThoseOfAFreshPrefill) {
  Core core = MakeCore({.slots = 4, .kv_pages = 12, .step_rows_max = 256});
  Request bending = Generate(RandomText(100, 30), 60);
  bending.budget = {.automatic = true, .chunk_size_min = 1};
  bending.sampling.repetition_penalty = 1;  // the replay's prompt is longer
  const RequestKey a = core.Add(bending);
  core.Steps(20);
  core.Add(Generate(RandomText(60, 31), 30, 1));  // needs its room
  core.Run();
  const Story story = core.story(a);
  ASSERT_EQ(story.changes.size(), 1u);
  const BudgetChangedEvent change = story.changes[0];
  EXPECT_EQ(change.from_chunk_size, 1);
  const int32_t before = change.at_token - 100;
  Request replay = bending;
  replay.budget = {.chunk_size = change.to_chunk_size};
  replay.prompt = Joined(bending.prompt, story.ids());
  replay.prompt.resize(change.at_token);
  replay.stop.max_tokens = 60 - before;
  const Story fresh = MakeCore().Tell(replay);
  const std::vector<TokenId> ids = story.ids();
  EXPECT_EQ(fresh.ids(), std::vector<TokenId>(ids.begin() + before, ids.end()));
}

const Setting kAdaptive[] = {
    {"adaptive-tiny"}, {"adaptive-tiny", DType::kI8}, {"adaptive-tiny", DType::kF32, true}};

std::vector<Setting> Settings() {
  std::vector<Setting> settings(std::begin(kAdaptive), std::end(kAdaptive));
  for (const std::string& model : kGoldenModels) {
    if (model == kAdaptive[0].model) continue;
    for (const bool late : {false, true}) settings.push_back({model, DType::kF32, late});
  }
  return settings;
}

std::string TestName(const ::testing::TestParamInfo<Setting>& info) {
  std::string name = info.param.model + "_" + Name(info.param.kv_dtype);
  name[name.find('-')] = '_';
  return info.param.one_step_late ? name + "_late" : name;
}

INSTANTIATE_TEST_SUITE_P(Models, AdaptiveCompanyTest, ::testing::ValuesIn(kAdaptive), TestName);
INSTANTIATE_TEST_SUITE_P(Models, CompanyTest, ::testing::ValuesIn(Settings()), TestName);

}  // namespace
}  // namespace catserve::testing

// Steps given to the CUDA backend, whose device is emulated, before the results of the last are
// read: everybody gets the tokens that he gets when each step is waited for.
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/model.h"
#include "engine/model/model_executor.h"
#include "gtest/gtest.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/emulator/pace.h"
#include "tests/engine/model/core.h"
#include "tests/engine/model/golden.h"
#include "tests/engine/model/oracle.h"

namespace catserve::testing {
namespace {

using cuda::emulator::Pace;

// So small that some steps have more lists and results than there is room for.
constexpr cuda::CudaMemory kMemory{
    .scratch_bytes = 64 << 10, .upload_bytes = 17 << 10, .download_bytes = 512};

// An executor that is to be waited for after every step.
class LockStep final : public StepExecutor {
 public:
  explicit LockStep(std::unique_ptr<StepExecutor> executor) : executor_(std::move(executor)) {}

  void Launch(const StepPlan& plan) override { executor_->Launch(plan); }
  StepResult Collect() override { return executor_->Collect(); }
  int PipelineDepth() const override { return 0; }

 private:
  std::unique_ptr<StepExecutor> executor_;
};

// A text of the model's 37 tokens.
std::vector<TokenId> Text(int tokens, int seed) {
  std::vector<TokenId> text;
  for (int i = 0; i < tokens; ++i) text.push_back((i * i * 7 + i * seed + 3 * seed) % 37);
  return text;
}

Request Continue(std::vector<TokenId> prompt, int32_t max_tokens, int32_t chunk_size) {
  Request request;
  request.prompt = std::move(prompt);
  request.budget.chunk_size = chunk_size;
  request.sampling = {.temperature = 0, .logprobs = 0};
  request.stop.max_tokens = max_tokens;
  return request;
}

// Steps are waited for, or given ahead; then prompts are compressed in line, or beside the steps
// before.
enum class Order : uint8_t { kLockStep, kInLine, kAhead };

// Of the stream that decodes, and of the one beside it.
struct Paces {
  Pace decoding = Pace::kLazy;
  Pace beside = Pace::kLazy;
};
constexpr Paces kEqualPaces[] = {{Pace::kLazy, Pace::kLazy}, {Pace::kEager, Pace::kEager}};
constexpr Paces kUnequalPaces[] = {{Pace::kLazy, Pace::kEager}, {Pace::kEager, Pace::kLazy}};

class EmulatedAhead : public ::testing::TestWithParam<ModelKind> {
 protected:
  EmulatedAhead() {
    constexpr OracleStack kDecoder{
        .dim = 16, .layers = 2, .heads = 2, .kv_heads = 1, .feed_forward = 24, .qk_norm = true};
    constexpr OracleStack kCompressor{
        .dim = 8, .layers = 1, .heads = 2, .kv_heads = 2, .feed_forward = 16, .qk_norm = false};
    const OracleModel model = RandomModel(GetParam(), kDecoder, kCompressor, 3);
    directory_.Write("config.json", model.ConfigJson());
    directory_.Write("model.safetensors", SafetensorsFile(model.weights));
  }

  // Plays a scene with 4 slots and returns the stories of all its requests.
  std::vector<Story> Play(Order order, const Paces& paces, int64_t kv_pages,
                          const std::function<std::vector<RequestKey>(Core&)>& scene) {
    cuda::emulator::SetPace(paces.decoding);
    const auto backend = cuda::MakeCudaBackend(kMemory).value();
    cuda::emulator::SetPace(paces.beside);
    const auto model = Model::Load(directory_.path(), *backend).value();
    const ScheduleLimits limits{.slots = 4, .kv_pages = kv_pages, .step_rows_max = 48};
    std::unique_ptr<StepExecutor> executor =
        ModelExecutor::Create(*model, *backend,
                              {.slots = limits.slots,
                               .kv_pages = limits.kv_pages,
                               .step_rows_max = limits.step_rows_max,
                               .prompts_beside = order == Order::kAhead})
            .value();
    cuda::emulator::SetPace(Pace::kLazy);
    if (order == Order::kLockStep) executor = std::make_unique<LockStep>(std::move(executor));
    Core core(Geometry(model->config(), DType::kF32), limits, std::move(executor));
    const std::vector<RequestKey> keys = scene(core);
    core.Run();
    EXPECT_EQ(core.most_in_flight(), order == Order::kLockStep ? 1 : 2);
    rows_ = core.scheduler().totals().rows;
    std::vector<Story> stories;
    for (const RequestKey key : keys) stories.push_back(core.story(key));
    return stories;
  }
  int64_t rows_ = 0;  // of the scene played last

  TempDirectory directory_;
};

void ExpectSameResults(const std::vector<SampleResult>& got, const std::vector<SampleResult>& want,
                       const std::string& whose) {
  ASSERT_EQ(got.size(), want.size()) << whose;
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].token.id, want[i].token.id) << whose << ", token " << i;
    EXPECT_NEAR(got[i].token.logprob, want[i].token.logprob, 1e-4) << whose << ", token " << i;
    ASSERT_EQ(got[i].top.size(), want[i].top.size()) << whose << ", token " << i;
    for (size_t n = 0; n < got[i].top.size(); ++n) {
      EXPECT_EQ(got[i].top[n].id, want[i].top[n].id) << whose << ", token " << i;
    }
  }
}

void ExpectSame(const std::vector<Story>& got, const std::vector<Story>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t r = 0; r < got.size(); ++r) {
    const std::string whose = "request " + std::to_string(r);
    ASSERT_TRUE(got[r].finished) << whose;
    EXPECT_EQ(got[r].reason(), want[r].reason()) << whose;
    EXPECT_EQ(got[r].finished->usage.generated_tokens, want[r].finished->usage.generated_tokens);
    for (size_t c = 0; c < got[r].tokens.size(); ++c) {
      ExpectSameResults(got[r].tokens[c], want[r].tokens[c], whose);
    }
    ExpectSameResults(got[r].scores, want[r].scores, whose);
  }
}

// Everything that a plan can hold or a result can change.
std::vector<RequestKey> MixedTraffic(Core& core) {
  std::vector<Request> requests;
  requests.push_back(Continue(Text(11, 1), 12, 2));  // greedy
  requests.push_back(Continue(Text(9, 2), 20, 8));   // draws a stop token early
  requests.back().sampling = {.temperature = 1.2f,
                              .top_p = 0.95f,
                              .repetition_penalty = 1.3f,
                              .presence_penalty = 0.5f,
                              .frequency_penalty = 0.25f,
                              .logit_bias = {{5, 1.0f}},
                              .seed = 11,
                              .logprobs = 3};
  requests.back().stop.min_tokens = 3;
  for (TokenId id = 0; id < 25; ++id) requests.back().stop.stop_ids.push_back(id);
  requests.push_back(Continue(Text(18, 3), 5, 2));  // two choices of one prompt
  requests.back().sampling = {.temperature = 1, .seed = 12, .logprobs = 1};
  requests.back().choices = 2;
  requests.push_back(Continue(Text(20, 4), 0, 8));  // a text to score
  requests.back().task = Task::kScore;
  requests.back().sampling.logprobs = 2;
  requests.push_back(Continue(Text(25, 5), 20, 2));  // cancelled on its way
  requests.push_back(Continue(Text(14, 1), 4, 2));   // begins as the first
  std::vector<RequestKey> keys;
  for (Request& request : requests) {
    request.budget.chunk_size = core.Offered(request.budget.chunk_size);
    keys.push_back(core.Add(request));
  }
  for (int step = 0; step < 60 && core.story(keys[4]).tokens[0].size() < 3; ++step) core.Step();
  core.Cancel(keys[4]);
  return keys;
}

TEST_P(EmulatedAhead, NobodySeesThatStepsAreGivenBeforeResultsAreRead) {
  const std::vector<Story> want = Play(Order::kLockStep, {}, 60, MixedTraffic);
  const int64_t rows = rows_;
  EXPECT_EQ(want[1].reason(), FinishReason::kStopToken);
  EXPECT_LT(want[1].ids().size(), 20u);
  EXPECT_NE(want[2].ids(0), want[2].ids(1));
  EXPECT_EQ(want[4].reason(), FinishReason::kCancelled);
  for (const Paces& paces : kEqualPaces) {
    ExpectSame(Play(Order::kAhead, paces, 60, MixedTraffic), want);
    EXPECT_GT(rows_, rows) << "who had ended was in the next step by then";
  }
}

// The first one's reader falls behind while its next row is on its way, and the second needs the
// memory.
std::vector<RequestKey> Preemption(Core& core) {
  const RequestKey first = core.Add(Continue(Text(20, 6), 12, core.Offered(8)));
  core.Steps(4);
  core.scheduler().SetPaused(first, true);
  const RequestKey second = core.Add(Continue(Text(30, 7), 4, core.Offered(8)));
  core.Steps(8);
  core.scheduler().SetPaused(first, false);
  return {first, second};
}

TEST_P(EmulatedAhead, WhoLosesItsMemoryOnTheWayGoesOnWithTheSameTokens) {
  const int64_t pages = GetParam() == ModelKind::kDense ? 3 : 1;
  const std::vector<Story> want = Play(Order::kLockStep, {}, pages, Preemption);
  for (const Paces& paces : kUnequalPaces) {
    const std::vector<Story> got = Play(Order::kAhead, paces, pages, Preemption);
    EXPECT_EQ(got[0].preemptions, 1);
    ExpectSame(got, want);
  }
}

// The first one gets a coarser budget while it generates: its prompt's chunks are the host's text,
// those of what it drew are not.
std::vector<RequestKey> Coarsening(Core& core) {
  Request bending = Continue(Text(21, 8), 40, 0);
  bending.budget = {.automatic = true, .chunk_size_min = 2};
  const RequestKey first = core.Add(bending);
  core.Steps(16);
  return {first, core.Add(Continue(Text(30, 9), 30, core.Offered(2)))};
}

TEST_P(EmulatedAhead, WhoseBudgetChangesHasChunksInBothPlaces) {
  if (GetParam() == ModelKind::kDense) return;  // has no budget
  const std::vector<Story> want = Play(Order::kInLine, {}, 3, Coarsening);
  ASSERT_EQ(want[0].changes.size(), 1u);
  EXPECT_EQ(want[0].changes[0].from_chunk_size, 2);
  EXPECT_GT(want[0].changes[0].at_token, 21 + want[0].changes[0].to_chunk_size);
  for (const Paces& paces : kUnequalPaces) {
    ExpectSame(Play(Order::kAhead, paces, 3, Coarsening), want);
  }
}

// Prompts into slots whose last sequence has a row on its way, which still draws into its history.
std::vector<RequestKey> SlotsInTurn(Core& core) {
  std::vector<RequestKey> keys;
  for (int i = 0; i < 9; ++i) {
    Request request = Continue(Text(9 + 5 * (i % 4), i), 8, core.Offered(i % 2 == 0 ? 2 : 8));
    for (TokenId id = 0; id < 12; ++id) request.stop.stop_ids.push_back((id * 3 + i) % 37);
    keys.push_back(core.Add(request));
  }
  return keys;
}

TEST_P(EmulatedAhead, PromptsBesideStepsThatStillDrawIntoTheirSlotsAreThemselves) {
  if (GetParam() == ModelKind::kDense) return;  // has nothing to compress
  const std::vector<Story> want = Play(Order::kLockStep, {}, 60, SlotsInTurn);
  const int64_t rows = rows_;
  for (const Paces& paces : kUnequalPaces) {
    ExpectSame(Play(Order::kAhead, paces, 60, SlotsInTurn), want);
    EXPECT_GT(rows_, rows) << "nobody stopped early: the scene shows nothing";
  }
}

std::string TestName(const ::testing::TestParamInfo<ModelKind>& info) {
  return info.param == ModelKind::kDense ? "Dense" : "Cat";
}

INSTANTIATE_TEST_SUITE_P(Models, EmulatedAhead,
                         ::testing::Values(ModelKind::kCat, ModelKind::kDense), TestName);

}  // namespace
}  // namespace catserve::testing

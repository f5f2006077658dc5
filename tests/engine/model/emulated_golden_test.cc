// Requests through the engine, its scheduler, the real model and the CUDA backend, whose device is
// emulated: every list that goes up, every plan and every launch is what a GPU would be given.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/model/model.h"
#include "engine/model/model_executor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/emulator/memory.h"
#include "kernels/cuda/emulator/work.h"
#include "kernels/cuda/narrow_rows.cuh"
#include "kernels/cuda/paged_attention_piece.cuh"
#include "kernels/cuda/quantize_rows.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "tests/engine/model/golden.h"
#include "tests/engine/model/oracle.h"

namespace catserve::testing {
namespace {

constexpr cuda::CudaMemory kMemory{
    .scratch_bytes = 1 << 20, .upload_bytes = 256 << 10, .download_bytes = 16 << 10};

// What a request drew, or the score of each token from the second on.
struct Answer {
  std::vector<TokenId> ids;
  std::vector<float> logprobs;

  void Take(const std::vector<SampleResult>& results) {
    for (const SampleResult& result : results) {
      ids.push_back(result.token.id);
      logprobs.push_back(result.token.logprob);
    }
  }
};

// Notes how many copies to the device each step took, and how many streams had work.
class UploadsOfSteps final : public StepExecutor {
 public:
  explicit UploadsOfSteps(StepExecutor& executor) : executor_(executor) {}

  void Launch(const StepPlan& plan) override {
    for (const HistoryWrite& text : plan.history_writes) texts_[text.slot] = text.count;
    const bool of_prompts = std::any_of(
        plan.compressions.begin(), plan.compressions.end(), [&](const Compression& chunk) {
          return (chunk.chunk_index + 1) * chunk.chunk_size <= texts_[chunk.slot];
        });
    const int64_t before = cuda::emulator::Work::Given().uploads();
    executor_.Launch(plan);
    uploads.push_back(cuda::emulator::Work::Given().uploads() - before);
    streams.push_back(of_prompts ? 2 : 1);
  }
  StepResult Collect() override { return executor_.Collect(); }
  int PipelineDepth() const override { return executor_.PipelineDepth(); }

  std::vector<int64_t> uploads;
  std::vector<int64_t> streams;

 private:
  StepExecutor& executor_;
  std::map<int32_t, int32_t> texts_;  // tokens, by slot
};

struct Answers {
  std::vector<Answer> answers;
  std::vector<int64_t> uploads;  // of each step
  std::vector<int64_t> streams;  // of each step
  PartCounts parts;
};

struct Types {
  DType kv = DType::kF32;
  WeightType weights = WeightType::kAsStored;
};

// Answers to the requests, which run in one batch.
Answers Ask(const std::string& directory, const Types& types, std::vector<Request> requests) {
  const EngineOptions options{.slots = 4, .kv_pages = 40, .step_rows_max = 48};
  const auto backend = cuda::MakeCudaBackend(kMemory).value();
  const auto model = Model::Load(directory, *backend, {.weight_type = types.weights}).value();
  const auto executor = ModelExecutor::Create(*model, *backend,
                                              {.slots = options.slots,
                                               .kv_pages = options.kv_pages,
                                               .kv_dtype = types.kv,
                                               .step_rows_max = options.step_rows_max})
                            .value();
  UploadsOfSteps steps(*executor);
  Engine engine(Geometry(model->config(), types.kv), steps, options);
  std::vector<Answer> answers(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto key = engine.Submit(std::move(requests[i]), [&answer = answers[i]](Event event) {
      if (const auto* tokens = std::get_if<TokensEvent>(&event)) answer.Take(tokens->tokens);
      if (const auto* scores = std::get_if<ScoresEvent>(&event)) answer.Take(scores->scores);
    });
    EXPECT_TRUE(key.ok()) << key.status();
  }
  engine.Drain(absl::InfiniteDuration());  // the test's own limit counts
  return {std::move(answers), std::move(steps.uploads), std::move(steps.streams),
          backend->part_counts()};
}

constexpr int32_t kTokens = 6;   // of each continuation: a chunk of every size closes in it
constexpr int64_t kReplays = 4;  // of parts of the steps that these take, at least

// The emulated device is slow: the first tokens of a few cases, all in one batch, up to one that
// does not win by the margin. Returns how many were expected.
int ExpectGolden(const std::string& model_name, const Types& types,
                 const std::vector<std::string>& names, float margin = 0) {
  const Golden golden = LoadGolden(model_name);
  std::vector<Request> requests;
  for (const std::string& name : names) {
    Request request;
    request.prompt = golden.Case(name).prompt;
    request.budget.chunk_size = golden.Case(name).chunk_size;
    request.sampling.temperature = 0;
    request.stop.max_tokens = kTokens;
    requests.push_back(std::move(request));
  }
  const auto [answers, uploads, streams, parts] =
      Ask(GoldenDirectory(model_name), types, std::move(requests));
  EXPECT_GE(uploads.size(), kTokens);
  EXPECT_EQ(uploads, streams) << "a step's lists go up together";
  EXPECT_GE(parts.replayed, kReplays) << "steps that decode recur";
  EXPECT_EQ(parts.differed, 0) << "a key says all that launches depend on";
  EXPECT_EQ(parts.refused, 0);
  int expected = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    const GoldenCase& c = golden.Case(names[i]);
    for (int32_t t = 0; t < kTokens; ++t, ++expected) {
      if (margin > 0 && c.greedy_margins[t] <= margin) break;
      EXPECT_EQ(answers[i].ids.at(t), c.greedy[t]) << names[i] << " at token " << t;
    }
  }
  return expected;
}

TEST(EmulatedGolden, ChunksOfSeveralSizesContinueExactlyInOneBatch) {
  EXPECT_EQ(ExpectGolden("adaptive-tiny", {}, {"c4_n23", "c8_n43", "c16_n15"}), 3 * kTokens);
}

// One sequence long enough that three of its chunks close: the decoder with one row and with two,
// the output, the compressor's layers and the projection are all met, recorded and replayed.
TEST(EmulatedGolden, ClosingChunksAreReplayedToo) {
  const Golden golden = LoadGolden("adaptive-tiny");
  Request request;
  request.prompt = golden.Case("c4_n23").prompt;
  request.budget.chunk_size = 4;
  request.sampling.temperature = 0;
  request.stop.max_tokens = 14;
  const auto asked = Ask(GoldenDirectory("adaptive-tiny"), {}, {request});
  const std::vector<TokenId>& greedy = golden.Case("c4_n23").greedy;
  ASSERT_GE(greedy.size(), 14);
  EXPECT_THAT(asked.answers[0].ids,
              ::testing::ElementsAreArray(greedy.begin(), greedy.begin() + 14));
  EXPECT_EQ(asked.parts.first, 5);
  EXPECT_EQ(asked.parts.recorded, 5);
  EXPECT_GE(asked.parts.replayed, 20);
  EXPECT_EQ(asked.parts.differed, 0);
}

TEST(EmulatedGolden, ADenseModelContinuesExactlyFromMemoryOf16Bits) {
  EXPECT_EQ(ExpectGolden("dense-tiny", {.kv = DType::kBF16}, {"n7"}), kTokens);
}

// Weights and activations of 16 bits. The golden weights are large on purpose, which magnifies
// rounding: clear winners are few.
TEST(EmulatedGolden, ClearWinnersStayWithWeightsAndActivationsOf16Bits) {
  const std::vector<std::string> names = {"c1_n2", "c4_n4", "c4_n12"};
  EXPECT_EQ(ExpectGolden("adaptive-tiny", {.weights = WeightType::kBF16}, names, 2.4f), 5);
  EXPECT_EQ(ExpectGolden("adaptive-tiny", {.weights = WeightType::kF16}, names, 0.3f), 15);
}

// A model with heads of 64 scores a text; returns the largest error of a log-probability against
// the oracle's, whose logits have a deviation near 3 and whose weights are those of the file.
double WorstScore(ModelKind kind, int32_t chunk_size, const Types& types,
                  DType stored = DType::kF32) {
  constexpr OracleStack kDecoder{
      .dim = 128, .layers = 2, .heads = 2, .kv_heads = 2, .feed_forward = 40, .qk_norm = true};
  constexpr OracleStack kCompressor{
      .dim = 16, .layers = 1, .heads = 2, .kv_heads = 1, .feed_forward = 16, .qk_norm = true};
  OracleModel model = RandomModel(kind, kDecoder, kCompressor, 17);
  model.weights = Rounded(std::move(model.weights), stored);
  const TempDirectory directory;
  directory.Write("config.json", model.ConfigJson());
  directory.Write("model.safetensors", SafetensorsFile(model.weights, stored));
  Request request;
  request.task = Task::kScore;
  request.budget.chunk_size = chunk_size;
  for (int i = 0; i < 30; ++i) request.prompt.push_back((i * i + 3) % model.vocab);
  const std::vector<TokenId> text = request.prompt;
  const Answer answer = Ask(directory.path(), types, {request}).answers[0];
  EXPECT_EQ(answer.ids, std::vector<TokenId>(text.begin() + 1, text.end()));
  const Rows logits = OracleLogits(model, chunk_size, text);
  double worst = 0;
  for (size_t i = 0; i < answer.logprobs.size(); ++i) {
    double sum = 0;
    for (const double z : logits[i]) sum += std::exp(z);
    worst = std::max(worst, std::abs(answer.logprobs[i] - logits[i][text[i + 1]] + std::log(sum)));
  }
  return worst;
}

// Memory of few bits, where prompts are computed on the tensor cores: their tolerance.
TEST(EmulatedNarrowMemory, ScoresOnTheTensorCoresAreTheOraclesWithinTolerance) {
  const auto pieces = cuda::PagedAttentionPiece<cuda::BF16, 64>;
  const auto& given = cuda::emulator::Work::Given();
  EXPECT_LT(WorstScore(ModelKind::kDense, 0, {}), 1e-4);
  EXPECT_EQ(given.Launches(pieces), 0);
  EXPECT_LT(WorstScore(ModelKind::kDense, 0, {.kv = DType::kBF16}), 0.06);
  EXPECT_GT(given.Launches(pieces), 0);
  const int64_t dense = given.Launches(pieces);
  // Branches after the summaries.
  EXPECT_LT(WorstScore(ModelKind::kCat, 8, {.kv = DType::kBF16}), 0.06);
  EXPECT_GT(given.Launches(pieces), dense);
  EXPECT_LT(WorstScore(ModelKind::kCat, 8, {.kv = DType::kI8}), 0.2);
  EXPECT_LT(WorstScore(ModelKind::kCat, 8, {.kv = DType::kE4M3}), 0.6);
}

// With weights of 16 bits activations have them too; the residual stream and logits do not.
TEST(EmulatedActivations, ScoresOf16BitsAreTheOraclesWithinTolerance) {
  const auto norms = cuda::RmsNorm<cuda::BF16>;
  const auto narrowed = cuda::NarrowRows<cuda::BF16>;
  const auto& given = cuda::emulator::Work::Given();
  const int64_t norms_before = given.Launches(norms);
  const int64_t narrowed_before = given.Launches(narrowed);
  EXPECT_LT(WorstScore(ModelKind::kDense, 0, {}, DType::kBF16), 0.1);
  EXPECT_LT(WorstScore(ModelKind::kCat, 8, {.kv = DType::kBF16}, DType::kBF16), 0.1);
  EXPECT_GT(given.Launches(norms), norms_before);
  EXPECT_EQ(given.Launches(narrowed), narrowed_before) << "rows come as products read them";
  EXPECT_LT(WorstScore(ModelKind::kDense, 0, {}, DType::kF16), 0.02);
  EXPECT_LT(WorstScore(ModelKind::kCat, 8, {}, DType::kF16), 0.02);
}

// Of E4M3 the error is that of holding weights, and rows of inputs, with 8 bits.
TEST(EmulatedActivations, ScoresOfE4M3WeightsAreTheOraclesWithinTolerance) {
  const auto& given = cuda::emulator::Work::Given();
  const int64_t before = given.Launches(cuda::QuantizeRows);
  EXPECT_LT(WorstScore(ModelKind::kDense, 0, {.weights = WeightType::kE4M3}), 2.5);
  EXPECT_LT(WorstScore(ModelKind::kCat, 8, {.kv = DType::kE4M3, .weights = WeightType::kE4M3}),
            2.5);
  EXPECT_GT(given.Launches(cuda::QuantizeRows), before);
}

TEST(EmulatedMemory, PagesTakeWhatWeightsAndWorkspacesLeave) {
  constexpr int64_t kBytes = 24 << 20;
  cuda::emulator::SetDeviceBytes(kBytes);
  const auto backend = cuda::MakeCudaBackend(kMemory).value();
  cuda::emulator::SetDeviceBytes(int64_t{4} << 30);
  const auto model = Model::Load(GoldenDirectory("dense-tiny"), *backend).value();
  const int64_t page_bytes = kPageEntries * Geometry(model->config(), DType::kBF16).bytes_per_entry;
  ExecutorOptions options{.slots = 2, .kv_dtype = DType::kBF16, .step_rows_max = 64};
  options.choose_kv_pages = [&] { return backend->Memory()->free * 3 / 4 / page_bytes; };
  const int64_t before = backend->Memory()->free;
  {
    const auto executor = ModelExecutor::Create(*model, *backend, options).value();
    const int64_t pages = executor->kv_pages() * page_bytes;
    const int64_t left = backend->Memory()->free;
    EXPECT_NEAR(static_cast<double>(left), pages / 3.0, 2e4) << "asked once all else was taken";
    EXPECT_GT(before - left - pages, 64 * 1024) << "a workspace";
  }
  options.choose_kv_pages = [] { return 1 << 20; };
  const absl::Status refused = ModelExecutor::Create(*model, *backend, options).status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()),
              ::testing::AllOf(::testing::HasSubstr("KV memory of 1048576 pages"),
                               ::testing::HasSubstr("free of 25165824")));
}

}  // namespace
}  // namespace catserve::testing

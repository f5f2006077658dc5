// Requests through the engine, its scheduler, the real model and the CUDA backend, whose device is
// emulated: every list that goes up, every plan and every launch is what a GPU would be given.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/model/model.h"
#include "engine/model/model_executor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/engine/model/golden.h"

namespace catserve::testing {
namespace {

constexpr int32_t kTokens = 6;  // of each continuation: a chunk of every size closes in it

// The emulated device is slow: the first tokens of a few cases, all in one batch.
std::map<std::string, std::vector<TokenId>> Continue(const std::string& model_name, DType kv_dtype,
                                                     const std::vector<std::string>& names) {
  const Golden golden = LoadGolden(model_name);
  const EngineOptions options{.slots = 4, .kv_pages = 40, .step_rows_max = 48};
  const auto backend =
      cuda::MakeCudaBackend(
          {.scratch_bytes = 1 << 20, .upload_bytes = 256 << 10, .download_bytes = 16 << 10})
          .value();
  const auto model = Model::Load(GoldenDirectory(model_name), *backend).value();
  const auto executor = ModelExecutor::Create(*model, *backend,
                                              {.slots = options.slots,
                                               .kv_pages = options.kv_pages,
                                               .kv_dtype = kv_dtype,
                                               .step_rows_max = options.step_rows_max})
                            .value();
  Engine engine(Geometry(model->config(), kv_dtype), *executor, options);
  std::map<std::string, std::vector<TokenId>> drawn;
  for (const std::string& name : names) {
    const GoldenCase& c = golden.Case(name);
    Request request;
    request.prompt = c.prompt;
    request.budget.chunk_size = c.chunk_size;
    request.sampling.temperature = 0;
    request.stop.max_tokens = kTokens;
    std::vector<TokenId>& ids = drawn[name];
    const auto key = engine.Submit(std::move(request), [&ids](const Event& event) {
      if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
        for (const SampleResult& result : tokens->tokens) ids.push_back(result.token.id);
      }
    });
    EXPECT_TRUE(key.ok()) << key.status();
  }
  engine.Drain(absl::Minutes(4));
  return drawn;
}

void ExpectGolden(const std::string& model_name, DType kv_dtype,
                  const std::vector<std::string>& names) {
  const Golden golden = LoadGolden(model_name);
  for (const auto& [name, ids] : Continue(model_name, kv_dtype, names)) {
    const std::vector<TokenId>& greedy = golden.Case(name).greedy;
    EXPECT_THAT(ids, ::testing::ElementsAreArray(greedy.begin(), greedy.begin() + kTokens)) << name;
  }
}

TEST(EmulatedGolden, ChunksOfSeveralSizesContinueExactlyInOneBatch) {
  ExpectGolden("adaptive-tiny", DType::kF32, {"c4_n23", "c8_n43", "c16_n15"});
}

TEST(EmulatedGolden, ADenseModelContinuesExactlyFromMemoryOf16Bits) {
  ExpectGolden("dense-tiny", DType::kBF16, {"n7"});
}

}  // namespace
}  // namespace catserve::testing

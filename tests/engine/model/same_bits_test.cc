// On the CPU a sequence gets the same bits however it is computed: whole or token by token, alone
// or beside others, in large or small blocks, with any number of threads.
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/model/golden.h"
#include "tests/engine/model/model_runner.h"

namespace catserve::testing {
namespace {

using Logits = std::vector<std::vector<float>>;

std::vector<TokenId> RandomText(int length, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<TokenId> text;
  for (int i = 0; i < length; ++i) text.push_back(random() % 500);
  return text;
}

// A model and a form of the CPU.
struct Setting {
  std::string model;
  std::string backend;
  DType kv_dtype = DType::kF32;
};
std::ostream& operator<<(std::ostream& out, const Setting& s) {
  return out << s.model << " on " << s.backend << " with KV in " << Name(s.kv_dtype);
}

class SameBitsTest : public ::testing::TestWithParam<Setting> {
 protected:
  std::vector<int32_t> ChunkSizes() const {
    const std::vector<int32_t> sizes = runner_.geometry().chunk_sizes;
    return sizes.empty() ? std::vector<int32_t>{0} : sizes;
  }

  ModelRunner runner_{GoldenDirectory(GetParam().model),
                      {.backend = GetParam().backend, .kv_dtype = GetParam().kv_dtype}};
};

TEST_P(SameBitsTest, PrefillEqualsTokenByToken) {
  const std::vector<TokenId> text = RandomText(53, 1);
  for (const int32_t chunk_size : ChunkSizes()) {
    const Logits stepwise = runner_.StepwiseLogits(chunk_size, text);
    for (const int length : {1, 2, 7, 8, 9, 16, 17, 31, 48, 53}) {
      EXPECT_EQ(runner_.PrefillLogits(chunk_size, std::span(text).first(length)),
                stepwise[length - 1])
          << "chunk size " << chunk_size << ", " << length << " tokens";
    }
  }
}

TEST_P(SameBitsTest, ScoreEqualsTokenByToken) {
  const std::vector<TokenId> text = RandomText(70, 2);
  for (const int32_t chunk_size : ChunkSizes()) {
    const Logits stepwise = runner_.StepwiseLogits(chunk_size, text);
    const Logits scored = runner_.ScoreLogits(chunk_size, text);
    ASSERT_EQ(scored.size(), stepwise.size());
    for (size_t i = 0; i < text.size(); ++i) {
      EXPECT_EQ(scored[i], stepwise[i]) << "chunk size " << chunk_size << ", after token " << i;
    }
  }
}

TEST_P(SameBitsTest, SequencesOfDifferentChunkSizesDoNotSeeEachOther) {
  constexpr int kPrompt[ModelRunner::kSlots] = {37, 30, 64, 3};
  constexpr int kMore = 18;  // closes a chunk of 16
  // Chunk sizes 1, 8, 2, 16: the plan's order is not that of the sizes.
  const std::vector<int32_t> sizes = ChunkSizes();
  std::vector<PlanWriter> sequences;
  std::vector<std::vector<TokenId>> texts;
  std::vector<Logits> together(ModelRunner::kSlots);
  for (int slot = 0; slot < ModelRunner::kSlots; ++slot) {
    sequences.push_back(runner_.Sequence(slot, sizes[(slot * 3) % sizes.size()]));
    texts.push_back(RandomText(kPrompt[slot] + kMore, 20 + slot));
  }
  for (int step = 0; step <= kMore; ++step) {
    StepPlan plan;
    std::vector<int32_t> rows;
    for (int slot = 0; slot < ModelRunner::kSlots; ++slot) {
      const std::span<const TokenId> text(texts[slot]);
      if (step == 0) {
        rows.push_back(sequences[slot].Prefill(text.first(kPrompt[slot]), plan));
        sequences[slot].Write(text.subspan(kPrompt[slot]), plan);
      } else {
        rows.push_back(sequences[slot].Accept(plan));
      }
    }
    const Logits logits = runner_.Logits(plan, rows);
    for (int slot = 0; slot < ModelRunner::kSlots; ++slot) together[slot].push_back(logits[slot]);
  }
  for (int slot = 0; slot < ModelRunner::kSlots; ++slot) {
    const int32_t chunk_size = sizes[(slot * 3) % sizes.size()];
    const Logits alone = runner_.StepwiseLogits(chunk_size, texts[slot]);
    for (int step = 0; step <= kMore; ++step) {
      EXPECT_EQ(together[slot][step], alone[kPrompt[slot] + step - 1])
          << "slot " << slot << ", step " << step;
    }
  }
}

TEST_P(SameBitsTest, NeitherThreadsNorBlockSizesMatter) {
  const std::vector<TokenId> text = RandomText(100, 3);
  ModelRunner other(GoldenDirectory(GetParam().model), {.backend = GetParam().backend,
                                                        .threads = 3,
                                                        .kv_dtype = GetParam().kv_dtype,
                                                        .step_rows_max = 102});
  for (const int32_t chunk_size : ChunkSizes()) {
    EXPECT_EQ(other.PrefillLogits(chunk_size, text), runner_.PrefillLogits(chunk_size, text))
        << "chunk size " << chunk_size;
    EXPECT_EQ(other.fx(), runner_.fx()) << "chunk size " << chunk_size;
  }
}

std::vector<Setting> Settings() {
  std::vector<Setting> settings;
  for (const std::string& model : kGoldenModels) {
    settings.push_back({model, "cpu"});
    settings.push_back({model, "cpu", DType::kBF16});
    settings.push_back({model, "cpu", DType::kI8});
  }
  settings.push_back({"fixed-tiny", "cpu-reference"});
  return settings;
}

std::string TestName(const ::testing::TestParamInfo<Setting>& info) {
  std::string name = info.param.model + "_" + info.param.backend + "_" + Name(info.param.kv_dtype);
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}

INSTANTIATE_TEST_SUITE_P(Settings, SameBitsTest, ::testing::ValuesIn(Settings()), TestName);

}  // namespace
}  // namespace catserve::testing

// Shapes that the golden models do not have (grouped heads, q/k norm, odd sizes, 16-bit files),
// against a plain double-precision model of the whole sequence.
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/model/checkpoint_writer.h"
#include "tests/engine/model/golden.h"
#include "tests/engine/model/model_runner.h"
#include "tests/engine/model/oracle.h"

namespace catserve::testing {
namespace {

constexpr OracleStack kGroupedDecoder{
    .dim = 48, .layers = 3, .heads = 6, .kv_heads = 2, .feed_forward = 40, .qk_norm = true};
constexpr OracleStack kGroupedCompressor{
    .dim = 24, .layers = 2, .heads = 3, .kv_heads = 1, .feed_forward = 28, .qk_norm = true};

struct Shape {
  std::string name;
  ModelKind kind;
  bool qk_norm;
  int kv_heads;
  DType dtype;
  double tolerance;  // of logits with a deviation near 3
};

std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.name; }

class OracleTest : public ::testing::TestWithParam<Shape> {
 protected:
  OracleTest() {
    OracleStack decoder = kGroupedDecoder, compressor = kGroupedCompressor;
    decoder.qk_norm = compressor.qk_norm = GetParam().qk_norm;
    decoder.kv_heads = GetParam().kv_heads;
    model_ = RandomModel(GetParam().kind, decoder, compressor, 11);
    model_.weights = Rounded(std::move(model_.weights), GetParam().dtype);
    directory_.Write("config.json", model_.ConfigJson());
    directory_.Write("model.safetensors", SafetensorsFile(model_.weights, GetParam().dtype));
    std::mt19937 random(5);
    for (int i = 0; i < 29; ++i) text_.push_back(random() % model_.vocab);
  }

  TempDirectory directory_;
  OracleModel model_;
  std::vector<TokenId> text_;
};

TEST_P(OracleTest, LogitsAfterEveryTokenAgree) {
  ModelRunner runner(directory_.path(), {});
  std::vector<int32_t> chunk_sizes = runner.geometry().chunk_sizes;
  if (chunk_sizes.empty()) chunk_sizes = {0};
  for (const int32_t chunk_size : chunk_sizes) {
    const Rows expected = OracleLogits(model_, chunk_size, text_);
    const auto logits = runner.ScoreLogits(chunk_size, text_);
    ASSERT_EQ(logits.size(), expected.size());
    for (size_t i = 0; i < logits.size(); ++i) {
      const std::vector<float> row(expected[i].begin(), expected[i].end());
      EXPECT_LT(MaxDifference(logits[i], row), GetParam().tolerance)
          << "chunk size " << chunk_size << ", after token " << i;
    }
  }
}

// W_p of a 16-bit checkpoint is rounded once more, inputs of products with BF16 weights are rounded
// too: hence the wider bounds.
INSTANTIATE_TEST_SUITE_P(
    Shapes, OracleTest,
    ::testing::Values(Shape{"grouped_cat", ModelKind::kCat, true, 2, DType::kF32, 1e-4},
                      Shape{"one_kv_head_cat", ModelKind::kCat, false, 1, DType::kF32, 1e-4},
                      Shape{"grouped_cat_fixed", ModelKind::kCatFixed, true, 2, DType::kF32, 1e-4},
                      Shape{"grouped_dense", ModelKind::kDense, true, 3, DType::kF32, 1e-4},
                      Shape{"dense_without_norm", ModelKind::kDense, false, 6, DType::kF32, 1e-4},
                      Shape{"f16_cat", ModelKind::kCat, true, 2, DType::kF16, 0.004},
                      Shape{"bf16_dense", ModelKind::kDense, true, 2, DType::kBF16, 0.1},
                      Shape{"bf16_cat", ModelKind::kCat, true, 2, DType::kBF16, 0.1}),
    [](const auto& info) { return info.param.name; });

// The oracle itself answers to the authors' numbers.
TEST(Oracle, GivesTheGoldenLogits) {
  const GoldenCase golden = LoadGolden("adaptive-tiny").Case("c4_n23");
  OracleModel model{.kind = ModelKind::kCat,
                    .decoder = {128, 3, 4, 4, 512, false},
                    .compressor = {64, 2, 4, 4, 256, false},
                    .vocab = 512,
                    .padded_vocab = 512,
                    .block_size = 256,
                    .chunk_size_max = 16,
                    .chunk_sizes = {},
                    .weights = ReadArrays(GoldenDirectory("adaptive-tiny") + "/model.safetensors")};
  const Rows logits = OracleLogits(model, 4, golden.prompt);
  for (size_t i = 0; i < logits.size(); ++i) {
    const std::vector<float> row(logits[i].begin(), logits[i].end());
    const std::span<const float> expected(golden.logits_all.data() + i * 512, 512);
    EXPECT_LT(MaxDifference(row, expected), 2e-4) << "after token " << i;
  }
}

}  // namespace
}  // namespace catserve::testing

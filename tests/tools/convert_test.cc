// What tools/convert_checkpoint.py writes, served: files as PyTorch and SentencePiece wrote them
// (tests/data/convert) become directories whose numbers and tokens are right.
#include <cstdlib>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/model/checkpoint_writer.h"
#include "tests/engine/model/golden.h"
#include "tests/engine/model/model_runner.h"
#include "tests/engine/model/oracle.h"

namespace catserve::testing {
namespace {

const std::string kData = "tests/data/convert/";

int Convert(const std::string& arguments) {
  const std::string command =
      std::string(CATSERVE_PYTHON) + " tools/convert_checkpoint.py " + arguments + " > /dev/null";
  return std::system(command.c_str());
}

// The model of tests/tools/tiny_state.py around the weights that a directory holds.
OracleModel TinyModel(const std::string& directory) {
  return {
      .kind = ModelKind::kCat,
      .decoder =
          {.dim = 16, .layers = 2, .heads = 4, .kv_heads = 2, .feed_forward = 24, .qk_norm = true},
      .compressor =
          {.dim = 8, .layers = 1, .heads = 2, .kv_heads = 2, .feed_forward = 12, .qk_norm = true},
      .vocab = 37,
      .padded_vocab = 40,
      .block_size = 64,
      .chunk_size_max = 8,
      .chunk_sizes = {2, 8},
      .weights = ReadArrays(directory + "/model.safetensors")};
}

double WorstLogit(ModelRunner& runner, const OracleModel& model, int32_t chunk_size) {
  std::vector<TokenId> text;
  for (int i = 0; i < 29; ++i) text.push_back((i * 11 + 5) % model.vocab);
  const Rows expected = OracleLogits(model, chunk_size, text);
  const auto logits = runner.ScoreLogits(chunk_size, text);
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const std::vector<float> row(expected[i].begin(), expected[i].end());
    worst = std::max(worst, MaxDifference(logits.at(i), row));
  }
  return worst;
}

TEST(ConvertedCheckpoint, GivesTheLogitsOfItsWeights) {
  const TempDirectory whole, half;
  const std::string state = kData + "state_dict.pt ";
  const std::string sizes = " --vocab-size 37 --chunk-sizes 2,8";
  ASSERT_EQ(Convert(state + whole.path() + sizes + " --dtype f32"), 0);
  const OracleModel model = TinyModel(whole.path());
  EXPECT_EQ(LoadConfig(whole.File("config.json"))->chunk_sizes, (std::vector<int32_t>{2, 8}));
  ModelRunner exact(whole.path(), {});
  EXPECT_TRUE(exact.model().warnings().empty());
  for (const int32_t chunk_size : {2, 8}) EXPECT_LT(WorstLogit(exact, model, chunk_size), 1e-4);

  ASSERT_EQ(Convert(state + half.path() + sizes), 0);
  ModelRunner rounded(half.path(), {});
  EXPECT_EQ(rounded.model().Describe(DType::kF32).weight_dtype, "BF16");
  const double worst = WorstLogit(rounded, model, 8);
  EXPECT_LT(worst, 0.2);
  EXPECT_GT(worst, 1e-4) << "nothing was rounded";
}

TEST(ConvertedTokenizer, GivesTheTokensOfSentencePiece) {
  const TempDirectory directory;
  ASSERT_EQ(Convert(kData + "tokenizer.model " + directory.path()), 0);
  const auto tokenizer = Tokenizer::Load(directory.path()).value();
  const auto cases = nlohmann::json::parse(ReadAll(kData + "tokenizer_cases.json"));
  ASSERT_GT(cases.size(), 20);
  for (const nlohmann::json& c : cases) {
    const std::string text = c["text"];
    const auto ids = tokenizer->Encode(text, /*parse_special=*/false);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, c["ids"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(tokenizer->Decode(*ids), c["decoded"].get<std::string>());
  }
  EXPECT_TRUE(tokenizer->IsSpecial(tokenizer->info().eos_id));
}

}  // namespace
}  // namespace catserve::testing

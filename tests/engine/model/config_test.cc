// config.json: what is read, and that everything else is refused in one line.
#include <string>
#include <vector>

#include "engine/model/config.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/model/checkpoint_writer.h"
#include "tests/engine/model/golden.h"

namespace catserve::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(ParseConfig, ReadsTheAdaptiveModel) {
  const ModelConfig config = LoadConfig(GoldenDirectory("adaptive-tiny") + "/config.json").value();
  EXPECT_EQ(config.kind, ModelKind::kCat);
  EXPECT_EQ(config.decoder.dim, 128);
  EXPECT_EQ(config.decoder.feed_forward, 512);
  EXPECT_EQ(config.compressor.head_dim, 16);
  EXPECT_EQ(config.chunk_sizes, (std::vector<int32_t>{1, 2, 4, 8, 16}));
  EXPECT_EQ(config.chunk_size_levels(), 5);
  EXPECT_EQ(config.ChunkSizeLevel(8), 3);
  EXPECT_EQ(config.decoder_positions(), 18);
  EXPECT_EQ(config.compressor_positions(), 18);

  const ModelGeometry geometry = Geometry(config, DType::kBF16);
  EXPECT_EQ(geometry.block_size, 256);
  EXPECT_EQ(geometry.vocab_size, 512);
  EXPECT_EQ(geometry.bytes_per_entry, 3 * 2 * 4 * 32 * 2);
  EXPECT_EQ(Geometry(config, DType::kF32).bytes_per_entry, 3 * 2 * 4 * 32 * 4);
  EXPECT_EQ(Geometry(config, DType::kI8).bytes_per_entry, 3 * 2 * 4 * (32 + 2)) << "and scales";
}

TEST(ParseConfig, ReadsTheFixedAndTheDenseModel) {
  const ModelConfig fixed = LoadConfig(GoldenDirectory("fixed-tiny") + "/config.json").value();
  EXPECT_EQ(fixed.kind, ModelKind::kCatFixed);
  EXPECT_EQ(fixed.vocab_size, 500);
  EXPECT_EQ(fixed.padded_vocab_size, 512);
  EXPECT_EQ(fixed.chunk_size_levels(), 1);
  EXPECT_EQ(fixed.compressor_positions(), 9);

  const ModelConfig dense = LoadConfig(GoldenDirectory("dense-tiny") + "/config.json").value();
  EXPECT_EQ(dense.kind, ModelKind::kDense);
  EXPECT_TRUE(dense.chunk_sizes.empty());
  EXPECT_EQ(dense.decoder_positions(), 256);
}

// A change to the adaptive model's configuration, as JSON merge patch, and what is said about it.
struct BadConfig {
  const char* patch;
  const char* message;
};

TEST(ParseConfig, RefusesEveryBadFieldByItsName) {
  const BadConfig kBad[] = {
      {R"({"model_type": "gpt"})", "model_type must be \"cat\", \"cat_fixed\" or \"dense\""},
      {R"({"model_type": null})", "model_type must be"},
      {R"({"model_type": 7})", "model_type must be"},
      {R"({"decoder": null})", "decoder is missing"},
      {R"({"decoder": [1]})", "decoder is no object"},
      {R"({"compressor": null})", "compressor is missing"},
      {R"({"decoder": {"dim": null}})", "decoder.dim is missing"},
      {R"({"decoder": {"dim": -128}})", "decoder.dim is -128, expected an integer from 2 to"},
      {R"({"decoder": {"dim": 1e30}})", "decoder.dim is 1e+30, expected an integer"},
      {R"({"decoder": {"dim": 128.0}})", "decoder.dim is 128.0, expected an integer"},
      {R"({"decoder": {"dim": 18446744073709551615}})", "decoder.dim is 18446744073709551615"},
      {R"({"decoder": {"dim": "128"}})", "decoder.dim is string, expected an integer"},
      {R"({"decoder": {"dim": true}})", "decoder.dim is true"},
      {R"({"decoder": {"n_layer": 0}})", "decoder.n_layer is 0, expected an integer from 1"},
      {R"({"decoder": {"n_layer": 2000000000}})", "decoder.n_layer is 2000000000"},
      {R"({"decoder": {"n_head": 3}})", "decoder.head_dim is 32, expected dim / n_head"},
      {R"({"decoder": {"head_dim": 512}})", "decoder.head_dim is 512, expected an integer from 2"},
      {R"({"decoder": {"head_dim": 31}})", "decoder.head_dim is 31, expected an even number"},
      {R"({"decoder": {"n_local_heads": 3}})", "decoder.n_local_heads is 3, expected a divisor"},
      {R"({"decoder": {"n_local_heads": 0}})", "decoder.n_local_heads is 0"},
      {R"({"decoder": {"intermediate_size": 0}})", "decoder.intermediate_size is 0"},
      {R"({"decoder": {"vocab_size": 600}})", "decoder.padded_vocab_size is 512"},
      {R"({"decoder": {"vocab_size": 0}})", "decoder.vocab_size is 0"},
      {R"({"decoder": {"block_size": 1000000000}})", "decoder.block_size is 1000000000"},
      {R"({"decoder": {"block_size": 250}})", "decoder.block_size is 250, expected a multiple"},
      {R"({"decoder": {"chunk_size": 12}})", "decoder.chunk_size is 12, expected a power of two"},
      {R"({"decoder": {"chunk_size": 65536}})", "decoder.chunk_size is 65536"},
      {R"({"decoder": {"num_chunks": 17}})", "decoder.num_chunks is 17, expected 16"},
      {R"({"decoder": {"dim_fx": 64}})", "decoder.dim_fx is 64, expected 128"},
      {R"({"decoder": {"norm_eps": 0}})", "decoder.norm_eps is 0, expected a number above 0"},
      {R"({"decoder": {"norm_eps": -1e-5}})", "decoder.norm_eps is -1e-05"},
      {R"({"decoder": {"norm_eps": 1e-300}})", "decoder.norm_eps is 0, expected"},
      {R"({"decoder": {"rope_base": 0}})", "decoder.rope_base is 0"},
      {R"({"decoder": {"rope_base": 1e300}})", "decoder.rope_base is 1e+300"},
      {R"({"decoder": {"rope_n_elem": 16}})", "decoder.rope_n_elem is 16, expected 32 (head_dim)"},
      {R"({"decoder": {"use_qk_norm": 1}})", "decoder.use_qk_norm is 1, expected true or false"},
      {R"({"compressor": {"vocab_size": 500}})", "compressor.vocab_size is 500, expected 512"},
      {R"({"compressor": {"block_size": 128}})", "compressor.block_size is 128, expected 256"},
      {R"({"compressor": {"chunk_size": 8}})", "compressor.chunk_size is 8, expected 16"},
      {R"({"compressor": {"dim_fx": 64}})", "compressor.dim_fx is 64, expected 128"},
      {R"({"compressor": {"dim": 0}})", "compressor.dim is 0"},
      {R"({"chunk_sizes": null})", "chunk_sizes is missing"},
      {R"({"chunk_sizes": []})", "chunk_sizes is no list"},
      {R"({"chunk_sizes": 4})", "chunk_sizes is no list"},
      {R"({"chunk_sizes": [4, 2]})", "chunk_sizes must hold ascending powers of two"},
      {R"({"chunk_sizes": [4, 4]})", "chunk_sizes must hold ascending powers of two"},
      {R"({"chunk_sizes": [3]})", "chunk_sizes must hold ascending powers of two"},
      {R"({"chunk_sizes": [0]})", "chunk_sizes must hold ascending powers of two"},
      {R"({"chunk_sizes": [-4]})", "chunk_sizes must hold ascending powers of two"},
      {R"({"chunk_sizes": [32]})", "up to the chunk_size 16"},
      {R"({"chunk_sizes": [4, "8"]})", "chunk_sizes must hold ascending powers of two"},
      {R"({"model_type": "cat_fixed"})", "chunk_sizes must be [16] for model_type cat_fixed"},
  };
  const auto good =
      nlohmann::json::parse(ReadAll(GoldenDirectory("adaptive-tiny") + "/config.json"));
  for (const BadConfig& bad : kBad) {
    nlohmann::json document = good;
    document.merge_patch(nlohmann::json::parse(bad.patch));
    const auto config = ParseConfig(document.dump(), "m/config.json");
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << bad.patch;
    const std::string message(config.status().message());
    EXPECT_THAT(message, StartsWith("m/config.json: ")) << bad.patch;
    EXPECT_THAT(message, HasSubstr(bad.message)) << bad.patch;
    EXPECT_THAT(message, Not(HasSubstr("\n"))) << bad.patch;
  }
}

TEST(ParseConfig, RefusesHostileDocumentsCheaply) {
  const std::pair<std::string, const char*> kBad[] = {
      {"", "is not valid JSON"},
      {"{", "is not valid JSON at byte"},
      {"[]", "is not a JSON object"},
      {"7", "is not a JSON object"},
      {"{\"decoder\": \xff}", "is not valid JSON"},
      {"{\"a\": 1e999}", "a number is out of range"},
      {"{\"decoder\": 1, \"decoder\": 2}", "the key \"decoder\" stands twice"},
      {"{\"a\\nb\": 1, \"a\\nb\": 2}", "the key \"a\\nb\" stands twice"},
      {std::string(900'000, '['), "is nested deeper than 16 levels"},
      {"[" + std::string(900'000, ','), "holds more than 65536 values"},
  };
  for (const auto& [text, message] : kBad) {
    const auto config = ParseConfig(text, "config.json");
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 40);
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(message));
  }
}

TEST(LoadConfig, RefusesWhatIsNoSmallRegularFile) {
  const TempDirectory directory;
  EXPECT_EQ(LoadConfig(directory.File("config.json")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(LoadConfig(directory.path()).status().message()),
              HasSubstr("is not a regular file"));
  directory.Write("config.json", std::string(kConfigBytesMax + 1, ' '));
  const absl::Status status = LoadConfig(directory.File("config.json")).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("bytes long, at most 1048576"));
}

}  // namespace
}  // namespace catserve::testing

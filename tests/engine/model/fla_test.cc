// Model directories in the layout of the flash-linear-attention library's port
// (docs/checkpoints.md). That their numbers are right: golden_test, with the model "fla-tiny".
#include <memory>
#include <string>
#include <vector>

#include "engine/model/config.h"
#include "engine/model/model.h"
#include "engine/model/weights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "nlohmann/json.hpp"
#include "tests/engine/model/checkpoint_writer.h"
#include "tests/engine/model/golden.h"
#include "tests/engine/model/model_runner.h"

namespace catserve::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

nlohmann::json GoodConfig() {
  return nlohmann::json::parse(ReadAll(GoldenDirectory("fla-tiny") + "/config.json"));
}

// The good configuration with some fields replaced; a field given as "absent" is removed.
std::string With(const std::string& fields) {
  nlohmann::json document = GoodConfig();
  const nlohmann::json changes = nlohmann::json::parse(fields);
  for (const auto& [name, value] : changes.items()) {
    if (value == "absent") {
      document.erase(name);
    } else {
      document[name] = value;
    }
  }
  return document.dump();
}

ModelConfig Parsed(const std::string& fields) { return ParseConfig(With(fields), "c").value(); }

TEST(FlaConfig, SaysWhatTheModelIs) {
  const ModelConfig config = Parsed("{}");
  EXPECT_EQ(config.kind, ModelKind::kCat);
  EXPECT_EQ(config.layout, CheckpointLayout::kFla);
  EXPECT_EQ(config.decoder.kv_heads, 2);
  EXPECT_EQ(config.decoder.head_dim, 8);
  EXPECT_TRUE(config.decoder.qk_norm);
  EXPECT_FALSE(config.compressor.qk_norm) << "the compressor has no such norms in any case";
  EXPECT_FLOAT_EQ(config.decoder.norm_eps, 1e-6f);
  EXPECT_FLOAT_EQ(config.decoder.qk_norm_eps, 1e-5f);
  EXPECT_EQ(config.padded_vocab_size, 67) << "no padding in this layout";
  EXPECT_EQ(config.chunk_size_levels(), 13) << "a row for each size, and row 0";
  EXPECT_EQ(config.ChunkSizeLevel(5), 5);
  EXPECT_THAT(config.chunk_sizes, ElementsAre(1, 3, 4, 5, 8, 12));
}

TEST(FlaConfig, FillsInWhatTheLibraryWould) {
  const ModelConfig config = Parsed(R"({"num_kv_heads": null, "compressor_hidden_size": null,
      "compressor_num_layers": null, "compressor_num_heads": null, "qk_norm": "absent",
      "rope_theta": "absent", "norm_eps": null, "intermediate_size": null, "hidden_ratio": null,
      "num_hidden_layers": 9, "hidden_size": 768, "dim_fx": null, "tie_word_embeddings": "absent",
      "hidden_act": "absent", "qkv_bias": null})");
  EXPECT_EQ(config.decoder.kv_heads, 4);
  EXPECT_FALSE(config.decoder.qk_norm);
  EXPECT_EQ(config.compressor.dim, 384);
  EXPECT_EQ(config.compressor.layers, 2);
  EXPECT_EQ(config.compressor.heads, 2);
  EXPECT_EQ(config.decoder.rope_base, 10000);
  EXPECT_FLOAT_EQ(config.compressor.norm_eps, 1e-6f);
  EXPECT_EQ(config.decoder.feed_forward, 2048) << "4 * 768 * 2 / 3";
  EXPECT_EQ(config.compressor.feed_forward, 1024) << "4 * 384 * 2 / 3";
  EXPECT_FALSE(config.tied_output);
  // A width that is no multiple of 256 goes up; one size given counts for both stacks.
  EXPECT_EQ(Parsed(R"({"intermediate_size": null, "hidden_ratio": 3})").decoder.feed_forward, 256);
  EXPECT_EQ(Parsed(R"({"intermediate_size": 72})").compressor.feed_forward, 72);
}

TEST(FlaConfig, OffersTheSizesThatWereTrained) {
  const auto sizes = [](const std::string& fields) { return Parsed(fields).chunk_sizes; };
  EXPECT_THAT(sizes(R"({"chunk_sizes": "absent"})"), ElementsAre(4, 8, 12));
  EXPECT_THAT(sizes(R"({"chunk_sizes": "absent", "max_chunk_size": 32})"),
              ElementsAre(4, 8, 16, 32));
  EXPECT_THAT(sizes(R"({"chunk_sizes": null, "max_chunk_size": 3})"), ElementsAre(3));
  EXPECT_THAT(sizes(R"({"chunk_sizes": null, "min_train_chunk_size": 2,
                        "train_chunk_size_schedule": "power_of_2"})"),
              ElementsAre(2, 4, 8, 12));
  EXPECT_THAT(sizes(R"({"chunk_sizes": null, "train_chunk_size_schedule": "fixed"})"),
              ElementsAre(12));
}

TEST(FlaConfig, RefusesEveryBadFieldByItsName) {
  const std::pair<const char*, const char*> kBad[] = {
      {R"({"vocab_size": "absent"})", "vocab_size is missing"},
      {R"({"hidden_size": 0})", "hidden_size is 0, expected an integer from 2"},
      {R"({"hidden_size": null})", "hidden_size is null"},
      {R"({"num_heads": 3})", "num_heads is 3, expected a divisor of hidden_size (32)"},
      {R"({"num_heads": 32, "num_kv_heads": null})", "num_heads is 32, expected heads of an even"},
      {R"({"num_kv_heads": 3})", "num_kv_heads is 3, expected a divisor of num_heads (4)"},
      {R"({"num_hidden_layers": -1})", "num_hidden_layers is -1"},
      {R"({"max_chunk_size": 0})", "max_chunk_size is 0"},
      {R"({"max_chunk_size": 101, "chunk_sizes": null})",
       "max_chunk_size is 101, expected at most"},
      {R"({"max_position_embeddings": 1e9})", "max_position_embeddings is 1000000000.0"},
      {R"({"compressor_num_heads": 5})",
       "compressor_num_heads is 5, expected a divisor of compressor_hidden_size (16)"},
      {R"({"compressor_hidden_size": true})", "compressor_hidden_size is true"},
      {R"({"intermediate_size": 0})", "intermediate_size is 0"},
      {R"({"intermediate_size": null, "hidden_ratio": 65})", "hidden_ratio is 65"},
      {R"({"intermediate_size": null, "hidden_ratio": 64, "hidden_size": 65536, "num_heads": 256,
           "dim_fx": null})",
       "hidden_ratio is 64, expected a width of at most 262144"},
      {R"({"qkv_bias": true})", "qkv_bias is true, expected false (biases of queries, keys and"},
      {R"({"hidden_act": "gelu"})", "hidden_act is string, expected \"swish\""},
      {R"({"qk_norm": 1})", "qk_norm is 1, expected true or false"},
      {R"({"norm_eps": 0})", "norm_eps is 0"},
      {R"({"norm_eps": 1e-300})", "norm_eps is 0, expected a number that float32 can hold"},
      {R"({"rope_theta": -1})", "rope_theta is -1"},
      {R"({"dim_fx": 16})", "dim_fx is 16, expected 32 (hidden_size)"},
      {R"({"chunk_sizes": []})", "chunk_sizes must be a list of ascending numbers from 1 to"},
      {R"({"chunk_sizes": [13]})", "to the max_chunk_size 12"},
      {R"({"chunk_sizes": [0, 4]})", "chunk_sizes must be"},
      {R"({"chunk_sizes": [4, 4]})", "chunk_sizes must be"},
      {R"({"chunk_sizes": [4, 18446744073709551615]})", "chunk_sizes must be"},
      {R"({"chunk_sizes": 4})", "chunk_sizes must be"},
      {R"({"chunk_sizes": null, "min_train_chunk_size": 0})", "min_train_chunk_size is 0"},
  };
  for (const auto& [fields, expected] : kBad) {
    const absl::Status status = ParseConfig(With(fields), "m/config.json").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << fields;
    const std::string message(status.message());
    EXPECT_THAT(message, StartsWith("m/config.json: ")) << fields;
    EXPECT_THAT(message, HasSubstr(expected)) << fields;
    EXPECT_THAT(message, Not(HasSubstr("\n"))) << fields;
  }
}

// Columns of a matrix of width 12 at 8 of them lie at 0.25, 1.75, 3.25 ..: half-pixel centres.
TEST(ResampleColumns, FollowsHalfPixelCentresAtAnySize) {
  float w[12];
  for (int i = 0; i < 12; ++i) w[i] = static_cast<float>(i * i);
  const TensorView view(w, DType::kF32, {1, 12});
  const std::vector<float> at_8 = ResampleColumns(view, 12, 8);
  EXPECT_THAT(at_8, ElementsAre(0.25f, 3.25f, 10.75f, 22.75f, 39.25f, 60.25f, 85.75f, 115.75f));
  EXPECT_THAT(ResampleColumns(view, 12, 12), ::testing::ElementsAreArray(w));
  EXPECT_THAT(ResampleColumns(view, 12, 1), ElementsAre(30.5f));
}

class FlaLoadTest : public ::testing::Test {
 protected:
  FlaLoadTest() { Write("{}"); }

  void Write(const std::string& fields) {
    directory_.Write("config.json", With(fields));
    directory_.Write("model.safetensors", SafetensorsFile(weights_));
  }

  absl::Status Load() {
    const auto model = Model::Load(directory_.path(), *backend_);
    EXPECT_THAT(model.ok() ? (*model)->warnings() : std::vector<std::string>(), IsEmpty());
    return model.status();
  }

  std::vector<float> Logits() {
    const std::vector<TokenId> prompt{5, 60, 3, 17, 44, 2, 66};
    return ModelRunner(directory_.path(), {}).PrefillLogits(3, prompt);
  }

  TempDirectory directory_;
  HostArrays weights_ = ReadArrays(GoldenDirectory("fla-tiny") + "/model.safetensors");
  std::unique_ptr<Backend> backend_ = MakeBackend("cpu", 1).value();
};

TEST_F(FlaLoadTest, UsesEveryTensorAndMissesEachByName) {
  EXPECT_TRUE(Load().ok()) << Load();
  const HostArrays all = weights_;
  for (const auto& [name, array] : all) {
    weights_ = all;
    weights_.erase(name);
    Write("{}");
    const absl::Status status = Load();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("/model.safetensors: tensor \"" + name +
                                                         "\" is missing, expected shape"));
  }
}

TEST_F(FlaLoadTest, RefusesEveryWrongShapeByName) {
  const HostArrays all = weights_;
  for (const auto& [name, array] : all) {
    weights_ = all;
    HostArray& changed = weights_[name];
    changed.shape[0] += 1;
    changed.values.resize(changed.values.size() / array.shape[0] * changed.shape[0]);
    Write("{}");
    const absl::Status status = Load();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("tensor \"" + name + "\" has shape ["));
  }
}

TEST_F(FlaLoadTest, TiedEmbeddingsNeedNoOutputMatrix) {
  weights_["lm_head.weight"] = weights_["model.embeddings.weight"];
  Write("{}");
  const std::vector<float> untied = Logits();
  weights_.erase("lm_head.weight");
  Write(R"({"tie_word_embeddings": true})");
  EXPECT_EQ(Logits(), untied);
}

// The library's training loop counts its steps in the checkpoint.
TEST_F(FlaLoadTest, SkipsCountersButReadsNoWeightFromOne) {
  const auto with_counter = [&](const std::string& name) {
    const std::string file = SafetensorsFile(weights_);
    uint64_t length = 0;
    file.copy(reinterpret_cast<char*>(&length), sizeof(length));
    auto header = nlohmann::json::parse(file.substr(8, length));
    const std::string data = file.substr(8 + length);
    header[name] = {{"dtype", "I64"},
                    {"shape", nlohmann::json::array()},
                    {"data_offsets", {data.size(), data.size() + 8}}};
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    directory_.Write("model.safetensors", SafetensorsFile(text, data + std::string(8, '\1')));
    return Load();
  };
  EXPECT_TRUE(with_counter("model._train_chunk_size_step").ok());
  weights_.erase("model.norm.weight");
  EXPECT_THAT(std::string(with_counter("model.norm.weight").message()),
              HasSubstr("\"model.norm.weight\" has "));
}

}  // namespace
}  // namespace catserve::testing

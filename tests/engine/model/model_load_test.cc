// Model directories, whole and broken: a good one loads and describes itself; each broken one is
// refused by a single line that names the file and the tensor.
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "engine/model/checkpoint.h"
#include "engine/model/model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "nlohmann/json.hpp"
#include "tests/engine/model/checkpoint_writer.h"
#include "tests/engine/model/golden.h"
#include "tests/engine/model/oracle.h"

namespace catserve::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

constexpr OracleStack kDecoder{
    .dim = 16, .layers = 2, .heads = 4, .kv_heads = 2, .feed_forward = 24, .qk_norm = true};
constexpr OracleStack kCompressor{
    .dim = 8, .layers = 1, .heads = 2, .kv_heads = 2, .feed_forward = 12, .qk_norm = false};

class ModelLoadTest : public ::testing::Test {
 protected:
  ModelLoadTest() {
    directory_.Write("config.json", model_.ConfigJson());
    WriteWeights();
  }

  void WriteWeights() { directory_.Write("model.safetensors", SafetensorsFile(model_.weights)); }

  // Two shards and their index; tensors whose names sort before "g" lie in the first.
  void WriteShards() {
    HostArrays shards[2];
    nlohmann::json index;
    for (const auto& [name, array] : model_.weights) {
      const int shard = name < "g" ? 0 : 1;
      shards[shard][name] = array;
      index["weight_map"][name] = ShardName(shard);
    }
    for (int i = 0; i < 2; ++i) directory_.Write(ShardName(i), SafetensorsFile(shards[i]));
    directory_.Write("model.safetensors.index.json", index.dump());
    std::remove(directory_.File("model.safetensors").c_str());
  }
  static std::string ShardName(int i) {
    return "model-0000" + std::to_string(i + 1) + "-of-00002.safetensors";
  }

  absl::StatusOr<std::unique_ptr<Model>> Load(ModelOptions options = {}) {
    return Model::Load(directory_.path(), *backend_, options);
  }

  // The message of the refusal, which is one line about a file of the directory.
  std::string Refusal(absl::StatusCode code) {
    const absl::Status status = Load().status();
    EXPECT_EQ(status.code(), code) << status;
    const std::string message(status.message());
    EXPECT_THAT(message, StartsWith(directory_.path()));
    EXPECT_THAT(message, Not(HasSubstr("\n")));
    return message.substr(std::min(message.size(), directory_.path().size()));
  }

  TempDirectory directory_;
  OracleModel model_ = RandomModel(ModelKind::kCat, kDecoder, kCompressor, 3);
  std::unique_ptr<Backend> backend_ = MakeBackend("cpu", 1).value();
};

TEST_F(ModelLoadTest, DescribesWhatItLoaded) {
  const auto model = Load().value();
  EXPECT_THAT(model->warnings(), IsEmpty());
  const ModelDescription description = model->Describe(DType::kBF16);
  EXPECT_EQ(description.kind, "cat");
  EXPECT_EQ(description.weight_dtype, "F32");
  EXPECT_EQ(description.kv_dtype, "BF16");
  int64_t parameters = 0;
  for (const auto& [name, array] : model_.weights) parameters += array.values.size();
  EXPECT_EQ(description.parameters, parameters);
  EXPECT_THAT(description.geometry.chunk_sizes, ElementsAre(2, 8));
  EXPECT_EQ(description.geometry.bytes_per_entry, 2 * 2 * 2 * 4 * 2);
  EXPECT_EQ(description.decoder.kv_heads, 2);
  EXPECT_EQ(description.compressor.feed_forward, 12);
  // Layers of the decoder: wqkv [32, 16], wo [16, 16], gate and up [48, 16], proj [16, 24]; a
  // backend may pad what it packs.
  const int64_t decoder_weights = 2 * (32 * 16 + 16 * 16 + 48 * 16 + 16 * 24);
  EXPECT_GE(description.decoder_weight_bytes, 4 * decoder_weights);
  EXPECT_GE(description.output_weight_bytes, 4 * 64 * 16);
  EXPECT_GE(description.projection_weight_bytes.at(2), 4 * 16 * 2 * 8);
  EXPECT_GE(description.projection_weight_bytes.at(8), 4 * 16 * 8 * 8);
  EXPECT_EQ(description.projection_weight_bytes.size(), 2);
}

TEST_F(ModelLoadTest, HalvesItsWeightsOnRequest) {
  const ModelDescription whole = Load().value()->Describe(DType::kF32);
  const ModelDescription half =
      Load({.weight_type = WeightType::kBF16}).value()->Describe(DType::kF32);
  EXPECT_EQ(half.weight_dtype, "BF16");
  EXPECT_EQ(2 * half.decoder_weight_bytes, whole.decoder_weight_bytes);
  EXPECT_EQ(2 * half.projection_weight_bytes.at(2), whole.projection_weight_bytes.at(2));
}

TEST_F(ModelLoadTest, HoldsF16WithItsPrecisionAndRefusesWhatTheBackendHasNot) {
  const ModelDescription f16 =
      Load({.weight_type = WeightType::kF16}).value()->Describe(DType::kF32);
  EXPECT_EQ(f16.weight_dtype, "F16");
  const absl::Status refused = Load({.weight_type = WeightType::kE4M3}).status();
  EXPECT_TRUE(absl::IsUnimplemented(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("no weights of F8_E4M3"));
}

TEST_F(ModelLoadTest, ReadsShards) {
  WriteShards();
  EXPECT_TRUE(Load().ok()) << Load().status();
}

TEST_F(ModelLoadTest, WarnsOfTensorsItDoesNotUseInOneLine) {
  model_.weights["rope_cache"] = {{2}, {1, 2}};
  model_.weights["layers.0.attention.bias\n"] = {{1}, {1}};
  WriteWeights();
  const auto model = Load().value();
  ASSERT_EQ(model->warnings().size(), 1);
  EXPECT_THAT(model->warnings()[0], HasSubstr("2 tensors are not used by the model: "
                                              "\"layers.0.attention.bias\\n\", \"rope_cache\""));
}

TEST_F(ModelLoadTest, RefusesADirectoryWithoutConfigOrWeights) {
  std::remove(directory_.File("model.safetensors").c_str());
  EXPECT_THAT(Refusal(absl::StatusCode::kNotFound),
              HasSubstr("holds neither model.safetensors nor model.safetensors.index.json"));
  std::remove(directory_.File("config.json").c_str());
  EXPECT_THAT(Refusal(absl::StatusCode::kNotFound), HasSubstr("/config.json: cannot be opened"));
}

TEST_F(ModelLoadTest, RefusesEveryMissingTensorByName) {
  const HostArrays all = model_.weights;
  for (const auto& [name, array] : all) {
    model_.weights = all;
    model_.weights.erase(name);
    WriteWeights();
    EXPECT_THAT(
        Refusal(absl::StatusCode::kNotFound),
        HasSubstr("/model.safetensors: tensor \"" + name + "\" is missing, expected shape"));
  }
}

TEST_F(ModelLoadTest, RefusesEveryWrongShapeByName) {
  const HostArrays all = model_.weights;
  for (const auto& [name, array] : all) {
    model_.weights = all;
    HostArray& changed = model_.weights[name];
    changed.shape[0] += 1;
    changed.values.resize(changed.values.size() / array.shape[0] * changed.shape[0]);
    WriteWeights();
    const std::string message = Refusal(absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(message, HasSubstr("tensor \"" + name + "\" has shape ["));
    EXPECT_THAT(message, HasSubstr("], expected ["));
  }
}

// Such a model answered, with the lowest ids of equal logits.
TEST_F(ModelLoadTest, RefusesWeightsThatAreNoNumbers) {
  const HostArrays all = model_.weights;
  for (const auto& [name, array] : all) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (const float bad :
           {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        model_.weights = all;
        std::vector<float>& values = model_.weights[name].values;
        const size_t at = values.size() / 2;
        values[at] = bad;
        directory_.Write("model.safetensors", SafetensorsFile(model_.weights, dtype));
        EXPECT_THAT(Refusal(absl::StatusCode::kInvalidArgument),
                    HasSubstr("tensor \"" + name + "\" holds NaN or infinity, first as element " +
                              std::to_string(at)));
      }
    }
  }
}

TEST_F(ModelLoadTest, RefusesAFileCutAnywhere) {
  const std::string whole = ReadAll(directory_.File("model.safetensors"));
  for (const size_t length : {size_t{0}, size_t{5}, size_t{8}, size_t{500}, whole.size() - 1}) {
    directory_.Write("model.safetensors", whole.substr(0, length));
    EXPECT_THAT(Refusal(absl::StatusCode::kInvalidArgument), HasSubstr("/model.safetensors: "))
        << length;
  }
}

// Where files were mapped, this ended the process (SIGBUS).
TEST_F(ModelLoadTest, RefusesAFileThatIsCutShortWhileItIsRead) {
  Checkpoint checkpoint = Checkpoint::Open(directory_.path()).value();
  std::filesystem::resize_file(directory_.File("model.safetensors"), 600);
  const absl::Status cut = checkpoint.Tensor("norm.weight", {kDecoder.dim}).status();
  EXPECT_EQ(cut.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(cut.message()),
              AllOf(StartsWith(directory_.File("model.safetensors") + ": ends at byte "),
                    HasSubstr("replace files by renaming")));
}

TEST_F(ModelLoadTest, RefusesBadIndexes) {
  WriteShards();
  const nlohmann::json good =
      nlohmann::json::parse(ReadAll(directory_.File("model.safetensors.index.json")));
  const auto with = [&](const nlohmann::json& shard) {
    nlohmann::json index = good;
    index["weight_map"]["wte.weight"] = shard;
    directory_.Write("model.safetensors.index.json", index.dump());
    return Refusal(absl::StatusCode::kInvalidArgument);
  };
  for (const char* shard :
       {"../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "", "..", "config.json"}) {
    EXPECT_THAT(with(shard), HasSubstr("index.json: tensor \"wte.weight\" lies in \"" +
                                       std::string(shard) + "\", expected the plain name"));
  }
  EXPECT_THAT(with(7), HasSubstr("tensor \"wte.weight\" lies in no file"));
  EXPECT_THAT(with(ShardName(0)), HasSubstr("does not hold tensor \"wte.weight\""));
  directory_.Write("model.safetensors.index.json", R"({"weight_map": []})");
  EXPECT_THAT(Refusal(absl::StatusCode::kInvalidArgument), HasSubstr("no object \"weight_map\""));
  directory_.Write("model.safetensors.index.json", good.dump());
  std::remove(directory_.File(ShardName(1)).c_str());
  EXPECT_THAT(Refusal(absl::StatusCode::kNotFound), HasSubstr(ShardName(1)));
}

TEST_F(ModelLoadTest, RefusesATensorInTwoShards) {
  WriteShards();
  directory_.Write(ShardName(1), SafetensorsFile(model_.weights));
  EXPECT_THAT(Refusal(absl::StatusCode::kInvalidArgument), HasSubstr("stands in "));
}

}  // namespace
}  // namespace catserve::testing

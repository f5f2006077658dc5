#include "engine/model/fla_config.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/field_reader.h"

namespace catserve {
namespace {

using nlohmann::json;

// The port makes its query and key norms without an epsilon of their own: the library's default.
constexpr float kQkNormEps = 1e-5f;

constexpr int32_t kFeedForwardMultiple = 256;
constexpr int32_t kHiddenRatioMax = 64;
constexpr int32_t kChunkSizeMin = 4;  // the smallest that is offered unless the file says otherwise

// The names of a stack's sizes, which stand side by side in one object.
struct StackFields {
  const char* dim;
  const char* layers;
  const char* heads;
  const char* kv_heads;  // nullptr: as many as heads
};
constexpr StackFields kDecoderFields{"hidden_size", "num_hidden_layers", "num_heads",
                                     "num_kv_heads"};
constexpr StackFields kCompressorFields{"compressor_hidden_size", "compressor_num_layers",
                                        "compressor_num_heads", nullptr};

// Without `intermediate_size`: two thirds of ratio * width, up to the next multiple of 256.
int32_t FeedForward(FieldReader& fields, int32_t dim) {
  const int32_t ratio = fields.IntOr("hidden_ratio", 1, kHiddenRatioMax, 4);
  const int64_t exact = int64_t{dim} * ratio * 2 / 3;
  const int64_t rounded =
      (exact + kFeedForwardMultiple - 1) / kFeedForwardMultiple * kFeedForwardMultiple;
  if (!fields.Has("intermediate_size") && rounded > kFeedForwardMax) {
    fields.Fail("hidden_ratio", ratio, absl::StrCat("a width of at most ", kFeedForwardMax));
  }
  return fields.IntOr("intermediate_size", 1, kFeedForwardMax, static_cast<int32_t>(rounded));
}

// What both stacks take from the same fields, once widths and heads are known.
void FinishStack(FieldReader& fields, const StackFields& names, StackConfig& stack) {
  if (!fields.status().ok()) return;
  if (stack.dim % stack.heads != 0) {
    fields.Fail(names.heads, stack.heads,
                absl::StrCat("a divisor of ", names.dim, " (", stack.dim, ")"));
  } else if (stack.heads % stack.kv_heads != 0) {
    fields.Fail(names.kv_heads, stack.kv_heads,
                absl::StrCat("a divisor of ", names.heads, " (", stack.heads, ")"));
  }
  stack.head_dim = stack.dim / stack.heads;
  if (stack.head_dim % 2 != 0 || stack.head_dim > kHeadDimMax) {
    fields.Fail(names.heads, stack.heads,
                absl::StrCat("heads of an even width up to ", kHeadDimMax, ", not of ", names.dim,
                             " / ", names.heads, " = ", stack.head_dim));
  }
  stack.feed_forward = FeedForward(fields, stack.dim);
  stack.norm_eps = static_cast<float>(fields.PositiveOr("norm_eps", kNormEpsMax, 1e-6));
  if (stack.norm_eps == 0) fields.Fail("norm_eps", 0, "a number that float32 can hold");
  stack.qk_norm_eps = kQkNormEps;
  stack.rope_base = fields.PositiveOr("rope_theta", kRopeBaseMax, 10000);
}

StackConfig ReadDecoder(FieldReader& fields) {
  const StackFields& names = kDecoderFields;
  StackConfig stack;
  stack.dim = fields.Int(names.dim, 2, kDimMax);
  stack.layers = fields.Int(names.layers, 1, kLayersMax);
  stack.heads = fields.Int(names.heads, 1, kHeadsMax);
  stack.kv_heads = fields.IntOr(names.kv_heads, 1, kHeadsMax, stack.heads);
  stack.qk_norm = fields.BoolOr("qk_norm", false);
  FinishStack(fields, names, stack);
  return stack;
}

StackConfig ReadCompressor(FieldReader& fields, const StackConfig& decoder) {
  const StackFields& names = kCompressorFields;
  StackConfig stack;
  stack.dim = fields.IntOr(names.dim, 2, kDimMax, decoder.dim / 2);
  stack.layers = fields.IntOr(names.layers, 1, kLayersMax, std::max(1, decoder.layers / 4));
  stack.heads = fields.IntOr(names.heads, 1, kHeadsMax, std::max(1, decoder.heads / 2));
  stack.kv_heads = stack.heads;
  FinishStack(fields, names, stack);
  return stack;
}

// What the port can be built with and this engine cannot compute.
void RefuseOthers(FieldReader& fields, const json& document) {
  if (fields.BoolOr("qkv_bias", false)) {
    fields.Fail("qkv_bias", true, "false (biases of queries, keys and values are not supported)");
  }
  if (fields.Has("hidden_act") && document["hidden_act"] != "swish") {
    fields.Fail("hidden_act", document["hidden_act"], "\"swish\"");
  }
}

// Sizes that the file lists; any from 1 to the maximum can be served.
absl::Status ReadListedSizes(const json& sizes, const std::string& file, ModelConfig& config) {
  absl::Status error = absl::InvalidArgumentError(
      absl::StrCat(file, ": chunk_sizes must be a list of ascending numbers from 1 to the ",
                   "max_chunk_size ", config.chunk_size_max));
  if (!sizes.is_array() || sizes.empty()) return error;
  for (const json& size : sizes) {
    const uint64_t last = config.chunk_sizes.empty() ? 0 : config.chunk_sizes.back();
    if (!size.is_number_unsigned() || size.get<uint64_t>() <= last ||
        size.get<uint64_t>() > static_cast<uint64_t>(config.chunk_size_max)) {
      return error;
    }
    config.chunk_sizes.push_back(size.get<int32_t>());
  }
  return absl::OkStatus();
}

// What the model was trained with, as far as its file tells: doublings up to the maximum, which is
// the port's own default, or the maximum alone.
void ReadTrainedSizes(FieldReader& fields, const json& document, ModelConfig& config) {
  const int32_t min = fields.IntOr("min_train_chunk_size", 1, kChunkSizeMax, kChunkSizeMin);
  const auto schedule = document.find("train_chunk_size_schedule");
  const bool doublings = schedule == document.end() || *schedule == "power_of_2";
  for (int32_t size = min; fields.status().ok() && doublings && size < config.chunk_size_max;
       size *= 2) {
    config.chunk_sizes.push_back(size);
  }
  config.chunk_sizes.push_back(config.chunk_size_max);
}

}  // namespace

bool IsFlaConfig(const json& document) {
  return document.contains("hidden_size") && !document.contains("decoder");
}

absl::StatusOr<ModelConfig> ParseFlaConfig(const json& document, const std::string& file) {
  FieldReader fields(document, absl::StrCat(file, ": "));
  ModelConfig config;
  config.kind = ModelKind::kCat;
  config.layout = CheckpointLayout::kFla;
  config.vocab_size = fields.Int("vocab_size", 1, kVocabMax);
  config.padded_vocab_size = config.vocab_size;
  config.block_size = fields.Int("max_position_embeddings", 1, kBlockSizeMax);
  config.chunk_size_max = fields.Int("max_chunk_size", 1, kChunkSizeMax);
  config.tied_output = fields.BoolOr("tie_word_embeddings", false);
  RefuseOthers(fields, document);
  config.decoder = ReadDecoder(fields);
  if (fields.status().ok()) config.compressor = ReadCompressor(fields, config.decoder);
  if (fields.Has("dim_fx")) fields.Exactly("dim_fx", config.decoder.dim, "hidden_size");
  if (fields.status().ok() && config.chunk_size_max > config.block_size) {
    fields.Fail("max_chunk_size", config.chunk_size_max,
                absl::StrCat("at most max_position_embeddings (", config.block_size, ")"));
  }
  if (fields.Has("chunk_sizes")) {
    if (!fields.status().ok()) return fields.status();
    absl::Status status = ReadListedSizes(document["chunk_sizes"], file, config);
    if (!status.ok()) return status;
  } else {
    ReadTrainedSizes(fields, document, config);
  }
  if (!fields.status().ok()) return fields.status();
  return config;
}

}  // namespace catserve

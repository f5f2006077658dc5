#include "engine/model/config.h"

#include <bit>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/model/field_reader.h"
#include "engine/model/file.h"
#include "engine/model/fla_config.h"
#include "engine/model/json.h"
#include "kernels/backend.h"

namespace catserve {
namespace {

using nlohmann::json;

absl::StatusOr<const json*> FindStack(const json& document, const char* name,
                                      const std::string& file) {
  const auto stack = document.find(name);
  if (stack == document.end() || !stack->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": ", name, stack == document.end() ? " is missing" : " is no object"));
  }
  return &*stack;
}

StackConfig ReadStack(FieldReader& fields) {
  StackConfig stack;
  stack.dim = fields.Int("dim", 2, kDimMax);
  stack.layers = fields.Int("n_layer", 1, kLayersMax);
  stack.heads = fields.Int("n_head", 1, kHeadsMax);
  stack.kv_heads = fields.Int("n_local_heads", 1, kHeadsMax);
  stack.head_dim = fields.Int("head_dim", 2, kHeadDimMax);
  stack.feed_forward = fields.Int("intermediate_size", 1, kFeedForwardMax);
  stack.norm_eps = static_cast<float>(fields.Positive("norm_eps", 1));
  stack.qk_norm_eps = stack.norm_eps;
  stack.rope_base = fields.Positive("rope_base", 1e12);
  stack.qk_norm = fields.BoolOr("use_qk_norm", false);
  if (!fields.status().ok()) return stack;
  if (stack.head_dim % 2 != 0) fields.Fail("head_dim", stack.head_dim, "an even number");
  if (stack.heads * stack.head_dim != stack.dim) {
    fields.Fail("head_dim", stack.head_dim,
                absl::StrCat("dim / n_head (", stack.dim, " / ", stack.heads, ")"));
  }
  if (stack.heads % stack.kv_heads != 0) {
    fields.Fail("n_local_heads", stack.kv_heads,
                absl::StrCat("a divisor of n_head (", stack.heads, ")"));
  }
  if (stack.norm_eps == 0) fields.Fail("norm_eps", 0, "a number that float32 can hold");
  fields.Exactly("rope_n_elem", stack.head_dim, "head_dim");
  return stack;
}

// Sizes that the decoder decides for the whole model.
void ReadShared(FieldReader& fields, ModelConfig& config) {
  config.vocab_size = fields.Int("vocab_size", 1, kVocabMax);
  config.padded_vocab_size = fields.Int("padded_vocab_size", config.vocab_size, kVocabMax);
  config.block_size = fields.Int("block_size", 1, kBlockSizeMax);
  if (!config.compresses()) return;
  config.chunk_size_max = fields.Int("chunk_size", 1, kChunkSizeMax);
  if (!fields.status().ok()) return;
  if (!std::has_single_bit(static_cast<uint32_t>(config.chunk_size_max))) {
    fields.Fail("chunk_size", config.chunk_size_max, "a power of two");
  }
  if (config.block_size % config.chunk_size_max != 0) {
    fields.Fail("block_size", config.block_size,
                absl::StrCat("a multiple of chunk_size (", config.chunk_size_max, ")"));
  }
  fields.Exactly("num_chunks", config.block_size / config.chunk_size_max,
                 "block_size / chunk_size");
  fields.Exactly("dim_fx", config.decoder.dim, "the decoder's dim");
}

// The compressor has its own copies of the sizes it shares with the decoder.
void CheckShared(FieldReader& fields, const ModelConfig& config) {
  constexpr const char* kReason = "as in the decoder";
  fields.Exactly("vocab_size", config.vocab_size, kReason);
  fields.Exactly("padded_vocab_size", config.padded_vocab_size, kReason);
  fields.Exactly("block_size", config.block_size, kReason);
  fields.Exactly("chunk_size", config.chunk_size_max, kReason);
  fields.Exactly("num_chunks", config.block_size / config.chunk_size_max, kReason);
  fields.Exactly("dim_fx", config.decoder.dim, "the decoder's dim");
}

absl::Status ReadChunkSizes(const json& document, const std::string& file, ModelConfig& config) {
  const auto error = [&](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": chunk_sizes ", what));
  };
  const auto sizes = document.find("chunk_sizes");
  if (sizes == document.end()) return error("is missing");
  if (!sizes->is_array() || sizes->empty()) return error("is no list of sizes");
  for (const json& entry : *sizes) {
    const int64_t last = config.chunk_sizes.empty() ? 0 : config.chunk_sizes.back();
    const bool valid = entry.is_number_unsigned() && entry.get<uint64_t>() > last &&
                       entry.get<uint64_t>() <= config.chunk_size_max &&
                       std::has_single_bit(entry.get<uint64_t>());
    if (!valid) {
      return error(absl::StrCat("must hold ascending powers of two up to the chunk_size ",
                                config.chunk_size_max));
    }
    config.chunk_sizes.push_back(entry.get<int32_t>());
  }
  if (config.kind == ModelKind::kCatFixed && config.chunk_sizes.front() != config.chunk_size_max) {
    return error(absl::StrCat("must be [", config.chunk_size_max, "] for model_type cat_fixed"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelKind> ReadKind(const json& document, const std::string& file) {
  const auto type = document.find("model_type");
  if (type != document.end() && type->is_string()) {
    for (const ModelKind kind : {ModelKind::kCat, ModelKind::kCatFixed, ModelKind::kDense}) {
      if (*type == Name(kind)) return kind;
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat(file, ": model_type must be \"cat\", \"cat_fixed\" or \"dense\""));
}

}  // namespace

const char* Name(ModelKind kind) {
  switch (kind) {
    case ModelKind::kCat: return "cat";
    case ModelKind::kCatFixed: return "cat_fixed";
    case ModelKind::kDense: return "dense";
  }
  return "unknown";
}

int32_t ModelConfig::chunk_size_levels() const {
  return compresses() ? ChunkSizeLevel(chunk_size_max) + 1 : 1;
}

int32_t ModelConfig::ChunkSizeLevel(int32_t chunk_size) const {
  if (kind != ModelKind::kCat) return 0;
  if (layout == CheckpointLayout::kFla) return chunk_size;
  return std::countr_zero(static_cast<uint32_t>(chunk_size));
}

int32_t ModelConfig::decoder_positions() const {
  return compresses() ? chunk_size_max + 2 : block_size;
}

int32_t ModelConfig::compressor_positions() const {
  return chunk_size_max + compressor_prefix_rows();
}

absl::StatusOr<ModelConfig> ParseConfig(std::string_view text, const std::string& file) {
  absl::StatusOr<json> document = ParseJsonObject(text, file, JsonLimits{});
  if (!document.ok()) return document.status();
  ModelConfig config;
  absl::StatusOr<ModelKind> kind = ReadKind(*document, file);
  if (!kind.ok()) return kind.status();
  if (*kind == ModelKind::kCat && IsFlaConfig(*document)) return ParseFlaConfig(*document, file);
  config.kind = *kind;

  absl::StatusOr<const json*> decoder = FindStack(*document, "decoder", file);
  if (!decoder.ok()) return decoder.status();
  FieldReader decoder_fields(**decoder, absl::StrCat(file, ": decoder."));
  config.decoder = ReadStack(decoder_fields);
  ReadShared(decoder_fields, config);
  if (!decoder_fields.status().ok()) return decoder_fields.status();
  if (!config.compresses()) return config;

  absl::StatusOr<const json*> compressor = FindStack(*document, "compressor", file);
  if (!compressor.ok()) return compressor.status();
  FieldReader compressor_fields(**compressor, absl::StrCat(file, ": compressor."));
  config.compressor = ReadStack(compressor_fields);
  CheckShared(compressor_fields, config);
  if (!compressor_fields.status().ok()) return compressor_fields.status();
  if (absl::Status status = ReadChunkSizes(*document, file, config); !status.ok()) return status;
  return config;
}

absl::StatusOr<ModelConfig> LoadConfig(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, kConfigBytesMax);
  if (!text.ok()) return text.status();
  return ParseConfig(*text, path);
}

ModelGeometry Geometry(const ModelConfig& config, DType kv_dtype) {
  const StackConfig& decoder = config.decoder;
  return {.kind = config.kind,
          .chunk_sizes = config.chunk_sizes,
          .block_size = config.block_size,
          .vocab_size = config.vocab_size,
          .bytes_per_entry = int64_t{2} * decoder.layers * decoder.kv_heads *
                             KvHeadBytes(decoder.head_dim, kv_dtype)};
}

}  // namespace catserve

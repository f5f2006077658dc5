// A model directory's config.json as checked values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/geometry.h"
#include "kernels/tensor.h"

namespace catserve {

// One stack of layers: the decoder, the compressor, or the whole of a dense model.
struct StackConfig {
  int32_t dim = 0;
  int32_t layers = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;  // divides heads
  int32_t head_dim = 0;  // dim / heads; even, at most 256
  int32_t feed_forward = 0;
  float norm_eps = 0;
  double rope_base = 0;
  bool qk_norm = false;
  float qk_norm_eps = 0;  // of the norms of query and key heads

  int32_t qkv_width() const { return (heads + 2 * kv_heads) * head_dim; }
};

// Whose names and shapes a model directory follows: the authors' own (golden README), or those of
// the port in the flash-linear-attention library (docs/checkpoints.md).
enum class CheckpointLayout : uint8_t { kAuthors, kFla };

struct ModelConfig {
  ModelKind kind = ModelKind::kDense;
  CheckpointLayout layout = CheckpointLayout::kAuthors;
  StackConfig decoder;
  StackConfig compressor;  // unset for a dense model
  int32_t vocab_size = 0;
  int32_t padded_vocab_size = 0;  // rows of the embedding and output matrices
  int32_t block_size = 0;         // most tokens in one sequence
  int32_t chunk_size_max = 0;     // what the checkpoint was made for; 0 for a dense model
  bool tied_output = false;       // O is E
  // Offered, in ascending order; powers of two unless the layout is kFla; empty for a dense model.
  std::vector<int32_t> chunk_sizes;

  bool compresses() const { return kind != ModelKind::kDense; }
  // Rows of D and A: one for each power of two up to chunk_size_max (kFla: for each number from 0);
  // `cat_fixed` has one D, no A.
  int32_t chunk_size_levels() const;
  // The row of D and A that stands for a chunk size (p in the equations).
  int32_t ChunkSizeLevel(int32_t chunk_size) const;
  // Learned rows in front of a chunk's tokens in the compressor: A[p] and U[k], or U[k] alone.
  int32_t compressor_prefix_rows() const { return kind == ModelKind::kCat ? 2 : 1; }
  // Rotary positions that occur are 0 <= position < decoder_positions() (compressor_positions()).
  int32_t decoder_positions() const;
  int32_t compressor_positions() const;
};

inline constexpr int64_t kConfigBytesMax = 1 << 20;

const char* Name(ModelKind kind);  // "cat", "cat_fixed", "dense": as config.json spells it

// Reads the text of a config.json; `file` is how errors name it. Errors: INVALID_ARGUMENT in one
// line that names the file, the field, its value and what is allowed.
absl::StatusOr<ModelConfig> ParseConfig(std::string_view text, const std::string& file);

// Reads a config.json. Errors: those of ParseConfig, NOT_FOUND, and what the file system says.
absl::StatusOr<ModelConfig> LoadConfig(const std::string& path);

ModelGeometry Geometry(const ModelConfig& config, DType kv_dtype);

}  // namespace catserve

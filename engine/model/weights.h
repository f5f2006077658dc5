// A checkpoint's tensors in the backend's memory, in the form that the operations take.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/checkpoint.h"
#include "engine/model/config.h"
#include "kernels/backend.h"

namespace catserve {

// The precision that weight matrices are held in. Embedding tables stay as stored, norms are F32.
enum class WeightType : uint8_t { kAsStored, kF32, kBF16, kF16, kI8, kI4, kE4M3 };

struct Table {  // a tensor in device memory
  std::unique_ptr<Buffer> buffer;
  TensorView view;  // empty if the model has no such tensor
};

struct LayerWeights {
  Table attention_norm;             // [dim]
  std::unique_ptr<Matrix> wqkv;     // [(heads + 2 kv_heads) * head_dim, dim]
  Table q_norm, k_norm;             // [head_dim], or empty
  std::unique_ptr<Matrix> wo;       // [dim, dim]
  Table ffn_norm;                   // [dim]
  std::unique_ptr<Matrix> gate_up;  // [2 feed_forward, dim]: fc_1, then fc_2
  std::unique_ptr<Matrix> down;     // [dim, feed_forward]
};

struct StackWeights {
  std::vector<LayerWeights> layers;
  Table norm;    // [dim], after the last layer
  Table rotary;  // [positions, head_dim]: cos in the first half of a row, sin in the second
  DType activations = DType::kF32;  // what the products of all layers read as it is

  int64_t matrix_bytes() const;  // of all layers
};

struct CompressorWeights {  // empty for a dense model
  Table tokens;             // E_f  [padded_vocab, e]
  Table positions;          // U    [block_size, e]; `cat_fixed`: [num_chunks, e]
  Table levels;             // A    [chunk_size_levels, e]; empty for `cat_fixed`
  StackWeights stack;
  std::map<int32_t, std::unique_ptr<Matrix>> projections;  // W_p [d, C e] by chunk size C
};

struct ModelWeights {
  Table tokens;     // E  [padded_vocab, d]
  Table firsts;     // D  [chunk_size_levels, d]; empty for a dense model
  Table separator;  // S  [1, d]; `cat` only
  StackWeights stack;
  std::unique_ptr<Matrix> output;  // O  [padded_vocab, d]; from E where the two are tied
  CompressorWeights compressor;
  std::string dtype;  // of the matrices: "F32", "BF16", ...
};

// Loads tensor by tensor: beside the result, host memory holds one matrix at a time, as stored and
// converted.
// Errors: those of Checkpoint::Tensor and Backend::Allocate.
absl::StatusOr<ModelWeights> LoadWeights(Checkpoint& checkpoint, const ModelConfig& config,
                                         Backend& backend, WeightType type);

// W_p [d, C e]: the columns of W [d, C_max e] resampled linearly in F32, with half-pixel centres
// (golden README, section 4; the same rule for sizes that are no power of two).
// REQUIRES: 1 <= chunk_size <= chunk_size_max.
std::vector<float> ResampleColumns(const TensorView& w, int32_t chunk_size_max, int32_t chunk_size);

// [positions, head_dim]: cos and sin of position * base^(-2 i / head_dim), computed in double.
std::vector<float> RotaryTable(int32_t positions, int32_t head_dim, double base);

}  // namespace catserve

// What GetModel shows and what benchmarks compute floors from: facts of a loaded model.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "engine/geometry.h"

namespace catserve {

struct StackDescription {  // sizes of the decoder or the compressor
  int32_t dim = 0;
  int32_t layers = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t feed_forward = 0;
};

struct ModelDescription {
  std::string kind;  // "cat", "cat_fixed", "dense"
  int64_t parameters = 0;
  std::string weight_dtype;
  std::string kv_dtype;
  int32_t kv_element_bytes = 4;  // of KV memory
  int32_t kv_scale_bytes = 0;    // beside each head's key, and value, of an entry
  ModelGeometry geometry;
  StackDescription decoder;
  StackDescription compressor;  // zeros for a dense model
  // Bytes of weights that a product with any number of rows reads once.
  int64_t decoder_weight_bytes = 0;
  int64_t output_weight_bytes = 0;
  int64_t compressor_weight_bytes = 0;
  std::map<int32_t, int64_t> projection_weight_bytes;  // by chunk size
};

// Work of compressing one token, in decoder rows: the ratio of the operations of their products
// with weights (the output layer aside). 0 for a dense model.
double CompressorTokenRows(const ModelDescription& model);

}  // namespace catserve

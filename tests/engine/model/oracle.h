// The model once more, in the plainest form there is: the whole sequence at a time, double
// precision, an explicit mask (golden README, section 5). Shares no code with engine/model.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/geometry.h"
#include "engine/step.h"
#include "tests/engine/model/checkpoint_writer.h"

namespace catserve::testing {

struct OracleStack {
  int dim, layers, heads, kv_heads, feed_forward;
  bool qk_norm;
  double eps = 1e-5;
  double rope_base = 10000;
  int head_dim() const { return dim / heads; }
};

struct OracleModel {
  ModelKind kind;
  OracleStack decoder;
  OracleStack compressor;
  int vocab, padded_vocab, block_size, chunk_size_max;
  std::vector<int> chunk_sizes;
  HostArrays weights;

  std::string ConfigJson() const;
};

// Random weights of fixed seed; the rows of O behind the vocabulary are large on purpose.
OracleModel RandomModel(ModelKind kind, OracleStack decoder, OracleStack compressor, uint32_t seed);

using Rows = std::vector<std::vector<double>>;

// Row i: the logits [vocab] after tokens 0..i.
Rows OracleLogits(const OracleModel& model, int chunk_size, std::span<const TokenId> tokens);

}  // namespace catserve::testing

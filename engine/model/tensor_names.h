// How checkpoints call the tensors of the equations: one table for each layout.
#pragma once

#include "engine/model/config.h"

namespace catserve {

// A name is what stands before ".weight"; nullptr where a layout has no such tensor.
struct LayerNames {  // after "<prefix>layers.N."
  const char* attention_norm;
  const char* qkv;  // one matrix, or
  const char *q, *k, *v;
  const char *q_norm, *k_norm;
  const char* o;
  const char* ffn_norm;
  const char *gate, *up, *down;
};

struct StackNames {
  const char* prefix;  // of the layers and of "norm"
  LayerNames layer;
};

// These carry their ".weight".
struct TensorNames {
  const char* tokens;           // E
  const char* firsts;           // D
  const char* separator;        // S
  const char* output;           // O
  const char* chunk_tokens;     // E_f
  const char* chunk_positions;  // U
  const char* chunk_levels;     // A
  const char* projection;       // W
  StackNames decoder;
  StackNames compressor;
};

const TensorNames& NamesOf(CheckpointLayout layout);

}  // namespace catserve

// Complete chunks to one vector each (golden README, sections 4 and 9).
#pragma once

#include <span>

#include "engine/model/batch_builder.h"
#include "engine/model/config.h"
#include "engine/model/token_history.h"
#include "engine/model/transformer.h"
#include "engine/model/weights.h"
#include "kernels/backend.h"

namespace catserve {

class Compressor {
 public:
  // REQUIRES: all four outlive the compressor; the workspace takes at least one chunk.
  Compressor(Backend& backend, const ModelConfig& config, const CompressorWeights& weights,
             const Workspace& workspace);

  // fx[i] = the representation of chunks[i].  fx: [chunks, d]. Runs as many chunks at once as the
  // workspace holds; overwrites it. REQUIRES: chunks of one size stand together.
  void Run(const TensorView& fx, const TokenHistory& history, std::span<const Compression> chunks);

 private:
  void RunBatch(const TensorView& fx, const TokenHistory& history,
                std::span<const Compression> chunks);

  Backend& backend_;
  const ModelConfig& config_;
  const CompressorWeights& weights_;
  const Workspace& workspace_;
  Transformer transformer_;
  CompressorBatch batch_;
};

}  // namespace catserve

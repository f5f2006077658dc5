// Complete chunks to one vector each (golden README, sections 4 and 9).
#pragma once

#include <span>
#include <vector>

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

  // fx[order.rows[i]] = the representation of order.chunks[i].  fx: [rows, d]. Runs as many chunks
  // at once as the workspace holds; overwrites it. recurs: other steps compress as many chunks of
  // the same sizes. Then rows of an area that no chunk goes to may be overwritten.
  void Run(const TensorView& fx, const TokenHistory& history, const CompressionOrder& order,
           bool recurs);

 private:
  void RunLayers(const TokenHistory& history, bool recurs);
  void Project(const TensorView& fx, const CompressorBatch::Group& group,
               std::span<const GatherRow> features, bool recurs);

  Backend& backend_;
  const ModelConfig& config_;
  const CompressorWeights& weights_;
  const Workspace& workspace_;
  Transformer transformer_;
  CompressorBatch batch_;
  TensorView x_;                     // of the last batch
  std::vector<GatherRow> features_;  // of one projection
};

}  // namespace catserve

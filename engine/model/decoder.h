// Rows of many sequences through the decoder, over paged KV memory (golden README, sections 5 to 7,
// 9 and 10). Also a dense model: the plan's rows tell them apart.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/batch_builder.h"
#include "engine/model/config.h"
#include "engine/model/kv_cache.h"
#include "engine/model/token_history.h"
#include "engine/model/transformer.h"
#include "engine/model/weights.h"
#include "kernels/backend.h"

namespace catserve {

class Decoder {
 public:
  // Most rows that Logits takes at once: bounds the memory of [rows, vocabulary].
  static constexpr int64_t kLogitsRowsMax = 256;

  // REQUIRES: all five outlive the decoder. Errors: RESOURCE_EXHAUSTED (memory for logits).
  static absl::StatusOr<std::unique_ptr<Decoder>> Create(Backend& backend,
                                                         const ModelConfig& config,
                                                         const ModelWeights& weights,
                                                         const Workspace& workspace,
                                                         const KvCache& cache);

  // Computes all rows of the plan and writes their entries; fx_rows[i] is the row of fx that holds
  // the representation of plan.compressions[i]. Overwrites the workspace.
  void Run(const StepPlan& plan, const TokenHistory& history, const TensorView& fx,
           std::span<const int32_t> fx_rows);

  // Logits [rows, padded_vocab_size] of some rows of the last Run, valid until the next call.
  // REQUIRES: rows.size() <= logits_rows_max().
  TensorView Logits(std::span<const int32_t> rows);
  int64_t logits_rows_max() const;

 private:
  Decoder(Backend& backend, const ModelConfig& config, const ModelWeights& weights,
          const Workspace& workspace, const KvCache& cache);

  Backend& backend_;
  const ModelConfig& config_;
  const ModelWeights& weights_;
  const Workspace& workspace_;
  const KvCache& cache_;
  Transformer transformer_;
  DecoderBatch batch_;
  Activations activations_;         // of the last Run
  std::unique_ptr<Buffer> normed_;  // [logits_rows_max, d] F32
  std::unique_ptr<Buffer> narrow_;  // the same as the output's products read it; null where as F32
  std::unique_ptr<Buffer> logits_;  // [logits_rows_max, padded_vocab]
  std::vector<GatherRow> logits_rows_;
};

}  // namespace catserve

// Chunks of prompts, compressed on a device's second stream beside the steps before: what they are
// made of came from the host, so that they wait for nothing. Chunks that hold drawn tokens are
// compressed in line with what drew them (compressor.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/compressor.h"
#include "engine/model/config.h"
#include "engine/model/token_history.h"
#include "engine/model/transformer.h"
#include "engine/model/weights.h"
#include "engine/step.h"
#include "kernels/backend.h"

namespace catserve {

// Not thread-safe.
class PromptCompressor {
 public:
  struct Options {
    int32_t slots = 0;       // token histories
    int64_t rows_max = 0;    // of the compressor at once: at least one chunk's
    int64_t chunks_max = 0;  // of a step: a plan with more compresses them in line
  };
  // Rows of fx that it takes.
  static int64_t FxRows(const Options& options) { return kTurns * options.chunks_max; }

  // Null where the backend has no second stream. fx: [rows, d] F32 of `backend`, whose last
  // FxRows(options) rows are its own. REQUIRES: weights and fx were made before; backend, config,
  // weights and fx outlive it. Errors: RESOURCE_EXHAUSTED with the numbers, UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<PromptCompressor>> Create(Backend& backend,
                                                                  const ModelConfig& config,
                                                                  const CompressorWeights& weights,
                                                                  const TensorView& fx,
                                                                  const Options& options);
  ~PromptCompressor();  // waits for its stream
  PromptCompressor(const PromptCompressor&) = delete;
  PromptCompressor& operator=(const PromptCompressor&) = delete;

  // To be told of all texts that the host puts into a slot, whole or from their start on.
  void Write(int32_t slot, int32_t position, std::span<const TokenId> tokens);
  // Whether the chunk is of such a text.
  bool Holds(const Compression& chunk) const;
  int64_t chunks_max() const { return options_.chunks_max; }

  // Starts to compress chunks that it holds; at most once a step. Returns the row of fx where each
  // goes. REQUIRES: at most the backend's StepsAhead() steps were given and not awaited.
  std::vector<int32_t> Start(std::span<const Compression> chunks);
  // What the backend is given from here on finds those rows.
  void Join();

 private:
  // Steps take rows in turn: those of a step that is not awaited may still be read.
  static constexpr int kTurns = 2;

  PromptCompressor(Backend& backend, const TensorView& fx, const Options& options,
                   std::unique_ptr<Backend> beside, TokenHistory history);

  Backend& backend_;
  const TensorView fx_;
  const Options options_;
  std::unique_ptr<Backend> beside_;
  TokenHistory history_;  // of texts alone: nothing is drawn into it
  std::optional<Workspace> workspace_;
  std::optional<Compressor> compressor_;
  std::vector<int32_t> written_;  // tokens of each slot
  int turn_ = 0;
  int64_t started_ = 0;  // what beside_ was last submitted
};

}  // namespace catserve

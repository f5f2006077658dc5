#include "engine/model/prompt_compressor.h"

#include <utility>

#include "engine/model/batch_builder.h"
#include "kernels/check.h"

namespace catserve {

absl::StatusOr<std::unique_ptr<PromptCompressor>> PromptCompressor::Create(
    Backend& backend, const ModelConfig& config, const CompressorWeights& weights,
    const TensorView& fx, const Options& options) {
  CATSERVE_CHECK(backend.StepsAhead() < kTurns) << "rows for " << int{kTurns} << " steps at once";
  absl::StatusOr<std::unique_ptr<Backend>> beside = backend.MakeBeside();
  if (!beside.ok()) return beside.status();
  if (*beside == nullptr) return nullptr;
  absl::StatusOr<TokenHistory> history = TokenHistory::Create(**beside, config, options.slots);
  if (!history.ok()) return history.status();
  std::unique_ptr<PromptCompressor> prompts(
      new PromptCompressor(backend, fx, options, *std::move(beside), *std::move(history)));
  absl::StatusOr<Workspace> workspace = Workspace::Create(
      *prompts->beside_, {{&config.compressor, weights.stack.activations}}, options.rows_max);
  if (!workspace.ok()) return workspace.status();
  prompts->workspace_ = *std::move(workspace);
  prompts->compressor_.emplace(*prompts->beside_, config, weights, *prompts->workspace_);
  prompts->beside_->After(backend, backend.Submit());  // which clears fx
  prompts->beside_->Submit();
  return prompts;
}

PromptCompressor::PromptCompressor(Backend& backend, const TensorView& fx, const Options& options,
                                   std::unique_ptr<Backend> beside, TokenHistory history)
    : backend_(backend),
      fx_(fx),
      options_(options),
      beside_(std::move(beside)),
      history_(std::move(history)),
      written_(options.slots) {}

PromptCompressor::~PromptCompressor() { beside_->Synchronize(); }

void PromptCompressor::Write(int32_t slot, int32_t position, std::span<const TokenId> tokens) {
  history_.Write(slot, position, tokens);
  // A text that leaves a gap is known up to there.
  int32_t& written = written_[slot];
  if (position <= written) written = position + static_cast<int32_t>(tokens.size());
}

bool PromptCompressor::Holds(const Compression& chunk) const {
  CATSERVE_CHECK(chunk.slot >= 0 && chunk.slot < options_.slots)
      << "a chunk of slot " << chunk.slot << " of " << options_.slots;
  return (int64_t{chunk.chunk_index} + 1) * chunk.chunk_size <= written_[chunk.slot];
}

std::vector<int32_t> PromptCompressor::Start(std::span<const Compression> chunks) {
  CATSERVE_CHECK(std::ssize(chunks) <= options_.chunks_max)
      << chunks.size() << " chunks of prompts in a step of at most " << options_.chunks_max;
  const int64_t first = fx_.rows() - FxRows(options_) + turn_ * options_.chunks_max;
  const CompressionOrder order = OrderFrom(chunks, first);
  turn_ = (turn_ + 1) % kTurns;
  compressor_->Run(fx_, history_, order, /*recurs=*/false);
  started_ = beside_->Submit();
  return order.fx_rows;
}

void PromptCompressor::Join() { backend_.After(*beside_, started_); }

}  // namespace catserve

// Writes the rows of one sequence into StepPlans, as the golden README describes them and without a
// scheduler: prefill, one more token, all logits of a text.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/geometry.h"
#include "engine/step.h"

namespace catserve::testing {

class PlanWriter {
 public:
  // Uses `pages` in their order. chunk_size: 0 for a dense model.
  PlanWriter(ModelGeometry model, int32_t slot, int32_t chunk_size, std::vector<PageId> pages);

  // Puts tokens into the history, at the end of those accepted so far.
  void Write(std::span<const TokenId> tokens, StepPlan& plan) const;

  // Computes a whole prompt at once; the sequence must be empty. Returns the row that predicts the
  // next token, -1 if there is none (a dense model without a token).
  int32_t Prefill(std::span<const TokenId> prompt, StepPlan& plan);

  // Accepts the token that stands in the history behind those accepted so far. Returns the row
  // that predicts the next one.
  int32_t Accept(StepPlan& plan);

  // Computes the logits of a whole text: summaries, then every chunk as a branch of its own.
  // Result i: the row that predicts the token after text[i].
  std::vector<int32_t> ScoreAll(std::span<const TokenId> text, StepPlan& plan);

  int32_t tokens() const { return tokens_; }
  // A sample of the next token from `row`, to be stored behind the accepted ones.
  Sample Draw(int32_t row, const SamplingParams* params) const;

 private:
  int32_t separators() const { return SeparatorEntries(model_); }
  PageList AddPages(int32_t first, int32_t count, StepPlan& plan) const;
  RowRun& StartRun(PageList pages, int32_t first_entry, StepPlan& plan) const;
  void Compress(int32_t chunk, StepPlan& plan) const;
  static int32_t AddRow(Row row, StepPlan& plan);
  void AddBlockRows(int32_t chunk, int32_t count, StepPlan& plan) const;

  ModelGeometry model_;
  int32_t slot_;
  int32_t chunk_size_;
  std::vector<PageId> pages_;
  int32_t tokens_ = 0;
};

}  // namespace catserve::testing

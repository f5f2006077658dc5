// The rows that give the log-probabilities of a whole text in one prefill (golden README,
// section 5): the summaries on one stack, and every chunk as an independent branch above its first
// k + 1 of them. A dense model needs no branches: one causal run.
#pragma once

#include <cstdint>
#include <iterator>
#include <vector>

#include "engine/schedule/layout.h"
#include "engine/schedule/page_table.h"
#include "engine/schedule/step_builder.h"

namespace catserve {

// Predicts tokens 1 .. tokens - 1 of a slot's history, in order, in as many pieces as the steps'
// bounds ask for. Not thread-safe.
class ScoreSequence {
 public:
  // top_n: how many of the likeliest ids to report for each token. REQUIRES: tokens >= 2; pool
  // outlives the sequence.
  ScoreSequence(Layout layout, int32_t slot, int32_t tokens, int32_t top_n, PagePool& pool);

  // Adds the next piece: rows and ScoreRows of as many chunks as the step and the pool have room
  // for, what the prefix cache keeps included: pages that a piece has taken from it are free for
  // the next one. Returns the number of ScoreRows added.
  int32_t Fill(StepBuilder& step);

  // Gives back the pages of the last piece's branches. Steps run in order, so this is safe as soon
  // as the step is planned: who writes these pages next does so in a later step.
  void ReleaseBranches() { branches_.clear(); }

  bool complete() const { return next_position_ == tokens_; }
  int32_t next_position() const { return next_position_; }  // the first one not yet predicted
  int64_t branch_pages() const;                             // held for the last piece
  int64_t pages() const { return std::ssize(stack_.pages()) + branch_pages(); }

  // Pages that the next piece needs at least, besides those held.
  int64_t PagesMissing() const;

  // Pages of the stack of such a text, and of its largest branch: what Fill makes progress with.
  static int64_t StackPages(const Layout& layout, int32_t tokens);
  static int64_t BranchPages(const Layout& layout, int32_t tokens);

 private:
  void FillRun(StepBuilder& step);
  void FillBlocks(StepBuilder& step);
  int32_t BlocksThatFit(const StepBuilder& step) const;
  void AddBranch(StepBuilder& step, int32_t chunk, PageList prefix);
  void BeginStackRun(StepBuilder& step, int32_t entries);
  void Predict(StepBuilder& step, int32_t row, int32_t position);

  Layout layout_;
  int32_t slot_;
  int32_t tokens_;
  int32_t top_n_;
  PagePool& pool_;
  PageTable stack_;  // the summaries; a dense model's tokens
  std::vector<PageTable> branches_;
  int32_t next_position_ = 1;
};

}  // namespace catserve

// A StepPlan being filled, and how much more it may hold.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "engine/schedule/layout.h"
#include "engine/step.h"

namespace catserve {

// Not thread-safe.
class StepBuilder {
 public:
  // A step holds at most rows_max decoder rows and as many compressor tokens.
  explicit StepBuilder(int32_t rows_max) : rows_left_(rows_max), compressor_left_(rows_max) {}

  int32_t rows_left() const { return rows_left_; }

  // Of the entries [from, to) in the stack of `tokens` tokens, how many from the first fit into
  // the step, and so may be written by one run.
  int32_t Fit(const Layout& layout, int32_t from, int32_t to, int32_t tokens) const;
  // True if `rows` rows and compressions of `chunks` chunks fit.
  bool Fits(const Layout& layout, int32_t rows, int32_t chunks) const;

  void WriteHistory(int32_t slot, std::span<const TokenId> tokens);
  PageList AddPages(std::span<const PageId> pages);

  // Starts a run; the rows added next belong to it.
  void BeginRun(RowRun run);
  // Adds a row as Layout::RowOf gives it, and the compression of a summary. Returns its index.
  int32_t AddRow(Row row);

  void AddSample(const Sample& sample) { plan_.samples.push_back(sample); }
  void AddScore(const ScoreRow& score) { plan_.scores.push_back(score); }

  const StepPlan& plan() const { return plan_; }
  StepPlan Take() { return std::move(plan_); }

 private:
  int32_t rows_left_;
  int32_t compressor_left_;  // tokens
  StepPlan plan_;
};

}  // namespace catserve

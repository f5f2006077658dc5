// A StepPlan being filled, and how much more it may hold.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "engine/schedule/layout.h"
#include "engine/step.h"

namespace catserve {

// What a step may hold.
struct StepBounds {
  int32_t rows_max = 0;              // decoder rows, and as many compressor tokens
  double compressor_token_rows = 0;  // work of a compressor token, in decoder rows
};

// Not thread-safe.
class StepBuilder {
 public:
  explicit StepBuilder(StepBounds bounds)
      : bounds_(bounds), rows_left_(bounds.rows_max), compressor_left_(bounds.rows_max) {}

  // Lets so much work be added from here on, in decoder rows. Nothing may be before the first call.
  void Allow(double work) { work_left_ = work; }
  int32_t rows_left() const { return rows_left_; }
  double work_left() const { return work_left_; }
  double work() const { return work_; }  // so far

  // Work of one chunk's summary: its row and its compression.
  double SummaryWork(int32_t chunk_size) const {
    return 1 + chunk_size * bounds_.compressor_token_rows;
  }

  // Of the entries [from, to) in the stack of `tokens` tokens, how many from the first fit into
  // the step, and so may be written by one run.
  int32_t Fit(const Layout& layout, int32_t from, int32_t to, int32_t tokens) const;
  // True if `rows` rows and compressions of `chunks` chunks fit.
  bool Fits(const Layout& layout, int32_t rows, int32_t chunks) const;

  void WriteHistory(int32_t slot, std::span<const TokenId> tokens);
  void CopyPage(const PageCopy& copy) { plan_.page_copies.push_back(copy); }
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
  void Spend(double work) { work_left_ -= work, work_ += work; }

  StepBounds bounds_;
  int32_t rows_left_;
  int32_t compressor_left_;  // tokens
  double work_left_ = 0;
  double work_ = 0;
  StepPlan plan_;
};

}  // namespace catserve

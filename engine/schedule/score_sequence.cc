#include "engine/schedule/score_sequence.h"

#include <algorithm>

#include "engine/geometry.h"
#include "kernels/check.h"

namespace catserve {
namespace {

// Tokens that block `chunk` of a text reads: all but the chunk's or the text's last, which nothing
// is predicted from.
int32_t BlockTokens(const Layout& layout, int32_t chunk, int32_t tokens) {
  return std::min((chunk + 1) * layout.chunk_size() - 1, tokens - 1);
}

// Rows of block `chunk` besides its summary.
int32_t BranchRows(const Layout& layout, int32_t chunk, int32_t tokens) {
  const int32_t seen = BlockTokens(layout, chunk, tokens);
  return layout.Entries(seen) - layout.Summaries(seen);
}

}  // namespace

ScoreSequence::ScoreSequence(Layout layout, int32_t slot, int32_t tokens, int32_t top_n,
                             PagePool& pool)
    : layout_(layout), slot_(slot), tokens_(tokens), top_n_(top_n), pool_(pool), stack_(pool) {
  CATSERVE_CHECK(tokens >= 2) << "nothing to predict in " << tokens
                              << " token; admission must refuse it";
}

int64_t ScoreSequence::StackPages(const Layout& layout, int32_t tokens) {
  return PagesFor(layout.compresses() ? layout.Summaries(tokens - 1) : tokens - 1);
}

int64_t ScoreSequence::BranchPages(const Layout& layout, int32_t tokens) {
  return layout.compresses() ? PagesFor(BranchRows(layout, 0, tokens)) : 0;
}

int64_t ScoreSequence::branch_pages() const {
  int64_t pages = 0;
  for (const PageTable& branch : branches_) pages += std::ssize(branch.pages());
  return pages;
}

int64_t ScoreSequence::PagesMissing() const {
  const int64_t stack = StackPages(layout_, tokens_) - std::ssize(stack_.pages());
  return stack + BranchPages(layout_, tokens_);
}

int32_t ScoreSequence::Fill(StepBuilder& step) {
  const int32_t from = next_position_;
  if (layout_.compresses()) {
    FillBlocks(step);
  } else {
    FillRun(step);
  }
  return next_position_ - from;
}

void ScoreSequence::BeginStackRun(StepBuilder& step, int32_t entries) {
  const int32_t from = stack_.entries();
  CATSERVE_CHECK(stack_.Append(entries)) << "no page left for the text in slot " << slot_
                                         << "; its whole length must be reserved at its start";
  step.BeginRun({.slot = slot_,
                 .chunk_size = layout_.chunk_size(),
                 .pages = step.AddPages(stack_.pages()),
                 .first_entry = from});
}

void ScoreSequence::Predict(StepBuilder& step, int32_t row, int32_t position) {
  CATSERVE_CHECK(position == next_position_)
      << "predicts token " << position << " where " << next_position_ << " is next; keep the order";
  step.AddScore({.row = row, .slot = slot_, .position = position, .top_n = top_n_});
  ++next_position_;
}

void ScoreSequence::FillRun(StepBuilder& step) {
  const int32_t from = stack_.entries();
  const int64_t to = std::min<int64_t>(tokens_ - 1, from + stack_.Room());
  const int32_t count = step.Fit(layout_, from, static_cast<int32_t>(to), tokens_ - 1);
  if (count == 0) return;
  BeginStackRun(step, count);
  for (int32_t entry = from; entry < from + count; ++entry) {
    const int32_t row = step.AddRow(layout_.RowOf(entry, tokens_ - 1));
    Predict(step, row, layout_.Predicts(entry, tokens_ - 1));
  }
}

int32_t ScoreSequence::BlocksThatFit(const StepBuilder& step) const {
  const int32_t first = stack_.entries();  // one summary for each block so far
  const int32_t end = layout_.Summaries(tokens_ - 1);
  int32_t rows = 0, chunks = 0, blocks = 0;
  int64_t pages = 0;
  for (int32_t block = first; block < end; ++block, ++blocks) {
    const int32_t branch_rows = BranchRows(layout_, block, tokens_);
    rows += 1 + branch_rows;
    chunks += block > 0 ? 1 : 0;
    pages += PagesFor(branch_rows);
    const int64_t stack = PagesFor(block + 1) - std::ssize(stack_.pages());
    if (!step.Fits(layout_, rows, chunks) || pages + stack > pool_.available()) break;
  }
  return blocks;
}

void ScoreSequence::FillBlocks(StepBuilder& step) {
  const int32_t first = stack_.entries();
  const int32_t count = BlocksThatFit(step);
  if (count == 0) return;
  BeginStackRun(step, count);
  const PageList prefix = step.plan().runs.back().pages;
  const int32_t first_row = step.plan().runs.back().first_row;
  for (int32_t block = first; block < first + count; ++block) {
    step.AddRow(layout_.RowOf(block, tokens_ - 1));
  }
  for (int32_t block = first; block < first + count; ++block) {
    // Where there is no separator, the summary itself predicts the first token of its chunk.
    const int32_t seen = BlockTokens(layout_, block, tokens_);
    const int32_t predicted = layout_.Predicts(block, seen);
    if (predicted == block * layout_.chunk_size() && predicted > 0) {
      Predict(step, first_row + block - first, predicted);
    }
    AddBranch(step, block, prefix);
  }
}

void ScoreSequence::AddBranch(StepBuilder& step, int32_t chunk, PageList prefix) {
  const int32_t rows = BranchRows(layout_, chunk, tokens_);
  if (rows == 0) return;
  const int32_t seen = BlockTokens(layout_, chunk, tokens_);
  const int32_t summaries = layout_.Summaries(seen);
  PageTable& branch = branches_.emplace_back(pool_);
  CATSERVE_CHECK(branch.Append(rows))
      << "no page left for a branch of slot " << slot_ << "; pass Fill no more pages than are free";
  step.BeginRun({.slot = slot_,
                 .chunk_size = layout_.chunk_size(),
                 .prefix = prefix,
                 .prefix_entries = summaries,
                 .pages = step.AddPages(branch.pages())});
  for (int32_t entry = summaries; entry < summaries + rows; ++entry) {
    const int32_t row = step.AddRow(layout_.RowOf(entry, seen));
    const int32_t predicted = layout_.Predicts(entry, seen);
    if (predicted > 0) Predict(step, row, predicted);
  }
}

}  // namespace catserve

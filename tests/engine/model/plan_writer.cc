#include "tests/engine/model/plan_writer.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace catserve::testing {

PlanWriter::PlanWriter(ModelGeometry model, int32_t slot, int32_t chunk_size,
                       std::vector<PageId> pages)
    : model_(std::move(model)), slot_(slot), chunk_size_(chunk_size), pages_(std::move(pages)) {}

void PlanWriter::Write(std::span<const TokenId> tokens, StepPlan& plan) const {
  plan.history_writes.push_back({.slot = slot_,
                                 .position = tokens_,
                                 .first = static_cast<int32_t>(plan.tokens.size()),
                                 .count = static_cast<int32_t>(tokens.size())});
  plan.tokens.insert(plan.tokens.end(), tokens.begin(), tokens.end());
}

PageList PlanWriter::AddPages(int32_t first, int32_t count, StepPlan& plan) const {
  CATSERVE_CHECK(first + count <= pages_.size()) << "the test gives its sequence too few pages";
  const PageList list{static_cast<int32_t>(plan.page_ids.size()), count};
  plan.page_ids.insert(plan.page_ids.end(), pages_.begin() + first, pages_.begin() + first + count);
  return list;
}

RowRun& PlanWriter::StartRun(PageList pages, int32_t first_entry, StepPlan& plan) const {
  plan.runs.push_back({.slot = slot_,
                       .chunk_size = chunk_size_,
                       .pages = pages,
                       .first_entry = first_entry,
                       .first_row = static_cast<int32_t>(plan.rows.size())});
  return plan.runs.back();
}

int32_t PlanWriter::AddRow(Row row, StepPlan& plan) {
  plan.rows.push_back(row);
  ++plan.runs.back().row_count;
  return static_cast<int32_t>(plan.rows.size()) - 1;
}

void PlanWriter::Compress(int32_t chunk, StepPlan& plan) const {
  AddRow({RowKind::kSummary, 0, static_cast<int32_t>(plan.compressions.size())}, plan);
  plan.compressions.push_back({slot_, chunk, chunk_size_});
}

// The separator of a chunk's block and the first `count` tokens of the chunk.
void PlanWriter::AddBlockRows(int32_t chunk, int32_t count, StepPlan& plan) const {
  if (separators() == 1) AddRow({RowKind::kSeparator, 1, 0}, plan);
  for (int32_t i = 0; i < count; ++i) {
    AddRow({RowKind::kToken, 1 + separators() + i, chunk * chunk_size_ + i}, plan);
  }
}

int32_t PlanWriter::Prefill(std::span<const TokenId> prompt, StepPlan& plan) {
  CATSERVE_CHECK(tokens_ == 0) << "the sequence has tokens already";
  Write(prompt, plan);
  tokens_ = static_cast<int32_t>(prompt.size());
  const int32_t entries = static_cast<int32_t>(EntriesAtRest(model_, chunk_size_, tokens_));
  StartRun(AddPages(0, static_cast<int32_t>(PagesFor(entries)), plan), 0, plan);
  if (!model_.compresses()) {
    for (int32_t i = 0; i < tokens_; ++i) AddRow({RowKind::kToken, i, i}, plan);
  } else {
    AddRow({RowKind::kFirst, 0, 0}, plan);
    for (int32_t k = 0; k < tokens_ / chunk_size_; ++k) Compress(k, plan);
    AddBlockRows(tokens_ / chunk_size_, tokens_ % chunk_size_, plan);
  }
  return static_cast<int32_t>(plan.rows.size()) - 1;
}

int32_t PlanWriter::Accept(StepPlan& plan) {
  const int32_t before = tokens_++;
  const int32_t entries = static_cast<int32_t>(EntriesAtRest(model_, chunk_size_, tokens_));
  const PageList pages = AddPages(0, static_cast<int32_t>(PagesFor(entries)), plan);
  if (!model_.compresses()) {
    StartRun(pages, before, plan);
    return AddRow({RowKind::kToken, before, before}, plan);
  }
  const int32_t open = tokens_ % chunk_size_;
  if (open == 0) {  // the chunk closes: its summary replaces its block
    const int32_t chunk = before / chunk_size_;
    StartRun(pages, chunk + 1, plan);
    Compress(chunk, plan);
    AddBlockRows(chunk + 1, 0, plan);
    return static_cast<int32_t>(plan.rows.size()) - 1;
  }
  StartRun(pages, entries - 1, plan);
  return AddRow({RowKind::kToken, separators() + open, before}, plan);
}

std::vector<int32_t> PlanWriter::ScoreAll(std::span<const TokenId> text, StepPlan& plan) {
  const int32_t n = static_cast<int32_t>(text.size());
  std::vector<int32_t> rows;
  if (!model_.compresses()) {
    const int32_t last = Prefill(text, plan);
    for (int32_t i = 0; i < n; ++i) rows.push_back(last - n + 1 + i);
    return rows;
  }
  CATSERVE_CHECK(tokens_ == 0) << "the sequence has tokens already";
  Write(text, plan);
  tokens_ = n;
  const int32_t chunks = n / chunk_size_;
  int32_t next_page = static_cast<int32_t>(PagesFor(chunks + 1));
  const PageList summaries = AddPages(0, next_page, plan);
  StartRun(summaries, 0, plan);
  const int32_t first_row = AddRow({RowKind::kFirst, 0, 0}, plan);
  for (int32_t k = 0; k < chunks; ++k) Compress(k, plan);

  for (int32_t k = 0; k <= chunks; ++k) {
    // The last token of a complete chunk predicts nothing; its block has no row for it.
    const int32_t tokens = k < chunks ? chunk_size_ - 1 : n % chunk_size_;
    const int32_t count = separators() + tokens;
    const int32_t pages = static_cast<int32_t>(PagesFor(count));
    RowRun& run = StartRun(AddPages(next_page, pages, plan), 0, plan);
    next_page += pages;
    run.prefix = summaries;
    run.prefix_entries = k + 1;
    const int32_t block_row = static_cast<int32_t>(plan.rows.size());
    AddBlockRows(k, tokens, plan);
    // What predicts the chunk's first token: the separator, or the summary itself.
    if (k > 0) rows.push_back(separators() == 1 ? block_row : first_row + k);
    for (int32_t i = 0; i < tokens; ++i) rows.push_back(block_row + separators() + i);
  }
  return rows;
}

Sample PlanWriter::Draw(int32_t row, const SamplingParams* params) const {
  return {.row = row,
          .slot = slot_,
          .position = tokens_,
          .prompt_tokens = 0,
          .choice = 0,
          .params = params};
}

}  // namespace catserve::testing

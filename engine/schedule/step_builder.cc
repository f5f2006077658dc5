#include "engine/schedule/step_builder.h"

#include "kernels/check.h"

namespace catserve {

int32_t StepBuilder::Fit(const Layout& layout, int32_t from, int32_t to, int32_t tokens) const {
  const int32_t size = layout.chunk_size();
  const int32_t summaries = layout.Summaries(tokens);
  int32_t fit = 0;
  int32_t compressor_left = compressor_left_;
  double work_left = work_left_;
  for (int32_t entry = from; entry < to && fit < rows_left_; ++entry, ++fit) {
    const bool summary = entry > 0 && entry < summaries;  // g_0 needs no compression
    work_left -= summary ? SummaryWork(size) : 1;
    compressor_left -= summary ? size : 0;
    if (work_left < 0 || compressor_left < 0) break;
  }
  return fit;
}

bool StepBuilder::Fits(const Layout& layout, int32_t rows, int32_t chunks) const {
  const double work = rows + chunks * (SummaryWork(layout.chunk_size()) - 1);
  return rows <= rows_left_ && chunks * layout.chunk_size() <= compressor_left_ &&
         work <= work_left_;
}

void StepBuilder::WriteHistory(int32_t slot, std::span<const TokenId> tokens) {
  const auto first = static_cast<int32_t>(plan_.tokens.size());
  plan_.tokens.insert(plan_.tokens.end(), tokens.begin(), tokens.end());
  plan_.history_writes.push_back(
      {.slot = slot, .position = 0, .first = first, .count = static_cast<int32_t>(tokens.size())});
}

PageList StepBuilder::AddPages(std::span<const PageId> pages) {
  const auto first = static_cast<int32_t>(plan_.page_ids.size());
  plan_.page_ids.insert(plan_.page_ids.end(), pages.begin(), pages.end());
  return {.first = first, .count = static_cast<int32_t>(pages.size())};
}

void StepBuilder::BeginRun(RowRun run) {
  run.first_row = static_cast<int32_t>(plan_.rows.size());
  run.row_count = 0;
  plan_.runs.push_back(run);
}

int32_t StepBuilder::AddRow(Row row) {
  RowRun& run = plan_.runs.back();
  if (row.kind == RowKind::kSummary) {
    const auto compression = static_cast<int32_t>(plan_.compressions.size());
    plan_.compressions.push_back(
        {.slot = run.slot, .chunk_index = row.index, .chunk_size = run.chunk_size});
    compressor_left_ -= run.chunk_size;
    row.index = compression;
    Spend(SummaryWork(run.chunk_size));
  } else {
    Spend(1);
  }
  ++run.row_count;
  --rows_left_;
  CATSERVE_CHECK(rows_left_ >= 0 && compressor_left_ >= 0)
      << "the step is overfull; ask Fit or Fits before adding rows";
  plan_.rows.push_back(row);
  return static_cast<int32_t>(plan_.rows.size()) - 1;
}

}  // namespace catserve

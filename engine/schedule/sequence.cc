#include "engine/schedule/sequence.h"

#include <algorithm>

#include "kernels/check.h"

namespace catserve {

void Sequence::Extend(int32_t tokens) {
  CATSERVE_CHECK((tokens_ == 0 || complete()) && tokens >= tokens_)
      << "a sequence of " << tokens_ << " tokens cannot go on to " << tokens << " yet; Fill it";
  if (layout_.Chunks(tokens) > layout_.Chunks(tokens_)) {
    table_.Truncate(std::min(table_.entries(), layout_.Summaries(tokens_)));
  }
  tokens_ = tokens;
}

FilledRows Sequence::Fill(StepBuilder& step) {
  const int32_t from = table_.entries();
  const int32_t count = step.Fit(layout_, from, layout_.Entries(tokens_), tokens_);
  if (count == 0) return {};
  CATSERVE_CHECK(table_.Append(count))
      << "no page left for slot " << slot_ << "; its largest length must be reserved at its start";
  step.BeginRun({.slot = slot_,
                 .chunk_size = layout_.chunk_size(),
                 .pages = step.AddPages(table_.pages()),
                 .first_entry = from});
  FilledRows filled{.first_entry = from, .count = count};
  for (int32_t entry = from; entry < from + count; ++entry) {
    const int32_t row = step.AddRow(layout_.RowOf(entry, tokens_));
    if (entry == from) filled.first_row = row;
  }
  return filled;
}

}  // namespace catserve

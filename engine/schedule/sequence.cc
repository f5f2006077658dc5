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

int32_t Sequence::Reuse(const PrefixHit& hit, StepBuilder& step) {
  table_.Adopt(hit.pages);
  if (hit.partial_entries == 0 || !table_.Append(hit.partial_entries)) {
    return std::max(0, table_.entries() - layout_.FirstUnitEntry());
  }
  const PageId own = table_.pages().back();
  // The found page itself may have been the one to take.
  if (own != hit.partial) {
    step.CopyPage({.from = hit.partial, .to = own, .entries = hit.partial_entries});
  }
  return hit.units;
}

int64_t Sequence::PagesMissing(int32_t tokens) const {
  return std::max<int64_t>(0, PagesFor(layout_.Entries(tokens)) - std::ssize(table_.pages()));
}

int32_t Sequence::UnitsWritten() const {
  return std::max(0, std::min(layout_.Units(tokens_), table_.entries() - layout_.FirstUnitEntry()));
}

FilledRows Sequence::Fill(StepBuilder& step) {
  const int32_t from = table_.entries();
  const int64_t to = std::min<int64_t>(layout_.Entries(tokens_), from + table_.Room());
  const int32_t count = step.Fit(layout_, from, static_cast<int32_t>(to), tokens_);
  if (count == 0) return {};
  CATSERVE_CHECK(table_.Append(count))
      << "no page left for slot " << slot_ << "; the pool shrank while it was asked for its room";
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

#include "engine/schedule/layout.h"

#include "kernels/check.h"

namespace catserve {

Layout::Layout(const ModelGeometry& model, int32_t chunk_size)
    : chunk_size_(chunk_size), separators_(SeparatorEntries(model)) {
  CATSERVE_CHECK(model.compresses() ? model.Offers(chunk_size) : chunk_size == 0)
      << "chunk size " << chunk_size << " is not the model's; admission must refuse it";
}

int32_t Layout::Entries(int32_t tokens) const {
  return Summaries(tokens) + separators_ + tokens - OpenFirst(tokens);
}

Row Layout::RowOf(int32_t entry, int32_t tokens) const {
  const int32_t summaries = Summaries(tokens);
  if (entry == 0 && summaries > 0) return {.kind = RowKind::kFirst};
  if (entry < summaries) return {.kind = RowKind::kSummary, .position = 0, .index = entry - 1};
  const int32_t position = compresses() ? entry - summaries + 1 : entry;
  if (entry < summaries + separators_) return {.kind = RowKind::kSeparator, .position = position};
  return {.kind = RowKind::kToken,
          .position = position,
          .index = OpenFirst(tokens) + entry - summaries - separators_};
}

int32_t Layout::Predicts(int32_t entry, int32_t tokens) const {
  return OpenFirst(tokens) + entry - (Summaries(tokens) + separators_ - 1);
}

}  // namespace catserve

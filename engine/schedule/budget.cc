#include "engine/schedule/budget.h"

#include <algorithm>

#include "engine/schedule/layout.h"
#include "engine/schedule/score_sequence.h"

namespace catserve {
namespace {

// Most entries at rest from a prefill of `from` tokens to a length of `to`: PeakEntries without the
// lengths that a prefill skips, which for a long prompt are the fullest.
int64_t PeakEntriesBetween(const ModelGeometry& model, int32_t chunk_size, int32_t from,
                           int32_t to) {
  int64_t peak =
      std::max(EntriesAtRest(model, chunk_size, from), EntriesAtRest(model, chunk_size, to));
  if (model.compresses()) {
    const int32_t last_full = (to + 1) / chunk_size * chunk_size - 1;  // before the last closing
    if (last_full > from) peak = std::max(peak, EntriesAtRest(model, chunk_size, last_full));
  }
  return peak;
}

}  // namespace

int32_t LargestLength(const Request& request) {
  return static_cast<int32_t>(request.prompt.size()) + std::max(0, request.stop.max_tokens - 1);
}

int64_t PagesPerChoice(const ModelGeometry& model, const Request& request, int32_t chunk_size) {
  const auto prompt = static_cast<int32_t>(request.prompt.size());
  if (request.task == Task::kScore) {
    const Layout layout(model, chunk_size);
    return ScoreSequence::StackPages(layout, prompt) + ScoreSequence::BranchPages(layout, prompt);
  }
  return PagesFor(PeakEntriesBetween(model, chunk_size, prompt, LargestLength(request)));
}

std::vector<int32_t> AllowedChunkSizes(const ModelGeometry& model, const Budget& budget) {
  if (!model.compresses()) return {0};
  std::vector<int32_t> allowed;
  for (const int32_t size : model.chunk_sizes) {
    const bool in_range = size >= budget.chunk_size_min &&
                          (budget.chunk_size_max == 0 || size <= budget.chunk_size_max);
    if (budget.automatic ? in_range : size == budget.chunk_size) allowed.push_back(size);
  }
  return allowed;
}

std::optional<Grant> Choose(const ModelGeometry& model, const Request& request,
                            int64_t pages_available) {
  for (const int32_t size : AllowedChunkSizes(model, request.budget)) {
    const int64_t per_choice = PagesPerChoice(model, request, size);
    const int64_t pages = per_choice * request.choices;
    const int64_t bytes = pages * kPageEntries * model.bytes_per_entry;
    const bool bounded = request.budget.automatic && request.budget.kv_bytes_max > 0;
    if (pages <= pages_available && (!bounded || bytes <= request.budget.kv_bytes_max)) {
      return Grant{.chunk_size = size, .pages_per_choice = per_choice};
    }
  }
  return std::nullopt;
}

}  // namespace catserve

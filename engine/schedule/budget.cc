#include "engine/schedule/budget.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "engine/schedule/layout.h"
#include "engine/schedule/memory_forecast.h"
#include "engine/schedule/score_sequence.h"
#include "kernels/check.h"

namespace catserve {
namespace {

constexpr double kLeastLoss = 1e-9;        // what loses nothing, or gains, is free
constexpr double kDoublingLoses = 0.0625;  // where nothing was measured; exact, so that equals tie

bool Contains(const std::vector<int32_t>& sizes, int32_t size) {
  return std::find(sizes.begin(), sizes.end(), size) != sizes.end();
}

std::vector<int32_t> BestFirst(const ModelGeometry& model, const Quality& quality,
                               const Budget& budget) {
  std::vector<int32_t> sizes = AllowedChunkSizes(model, budget);
  std::stable_sort(sizes.begin(), sizes.end(), [&](int32_t a, int32_t b) {
    return quality.Loss(budget, a) < quality.Loss(budget, b);
  });
  return sizes;
}

}  // namespace

double Quality::Loss(const Budget& budget, int32_t chunk_size) const {
  const bool there = budget.quality_column < std::ssize(columns_);
  if (there && !columns_[budget.quality_column].empty()) {
    const QualityColumn& column = columns_[budget.quality_column];
    const auto measured = column.find(chunk_size);
    CATSERVE_CHECK(measured != column.end())
        << "quality column " << budget.quality_column << " has no value for chunk size "
        << chunk_size << "; a budget's `among` names only those that its column has";
    return measured->second;
  }
  return chunk_size > 0 ? kDoublingLoses * std::log2(chunk_size) : 0;
}

int32_t LargestLength(const Request& request) {
  return static_cast<int32_t>(request.prompt.size()) + std::max(0, request.stop.max_tokens - 1);
}

int64_t LargestWork(const Request& request) {
  return std::ssize(request.prompt) + int64_t{request.choices} * request.stop.max_tokens;
}

int64_t PagesPerChoice(const ModelGeometry& model, const Request& request, int32_t chunk_size) {
  const auto prompt = static_cast<int32_t>(request.prompt.size());
  if (request.task == Task::kScore) {
    const Layout layout(model, chunk_size);
    return ScoreSequence::StackPages(layout, prompt) + ScoreSequence::BranchPages(layout, prompt);
  }
  return PagesBetween(model, chunk_size, prompt, LargestLength(request));
}

std::vector<int32_t> AllowedChunkSizes(const ModelGeometry& model, const Budget& budget) {
  if (!model.compresses()) return {0};
  std::vector<int32_t> allowed;
  for (const int32_t size : model.chunk_sizes) {
    const bool in_range = size >= budget.chunk_size_min &&
                          (budget.chunk_size_max == 0 || size <= budget.chunk_size_max) &&
                          (budget.among.empty() || Contains(budget.among, size));
    if (budget.automatic ? in_range : size == budget.chunk_size) allowed.push_back(size);
  }
  return allowed;
}

bool KeepsBound(const ModelGeometry& model, const Budget& budget, int64_t pages) {
  if (!budget.automatic || budget.kv_bytes_max == 0) return true;
  return pages * kPageEntries * model.bytes_per_entry <= budget.kv_bytes_max;
}

std::optional<int32_t> FitsAlone(const ModelGeometry& model, const Request& request,
                                 int64_t pages) {
  const auto prompt = static_cast<int32_t>(request.prompt.size());
  for (const int32_t size : AllowedChunkSizes(model, request.budget)) {
    const int64_t at_start = PagesBetween(model, size, prompt, prompt) * request.choices;
    if (PagesPerChoice(model, request, size) * request.choices <= pages &&
        KeepsBound(model, request.budget, at_start)) {
      return size;
    }
  }
  return std::nullopt;
}

int64_t PagesNow(const ModelGeometry& model, const Resident& resident, int32_t chunk_size) {
  return resident.choices * PagesBetween(model, chunk_size, resident.tokens, resident.tokens);
}

int64_t PagesAtEnd(const ModelGeometry& model, const Resident& resident, int32_t chunk_size) {
  return resident.choices * PagesBetween(model, chunk_size, resident.tokens, resident.end);
}

std::vector<int32_t> StartSizes(const ModelGeometry& model, const Quality& quality,
                                const Resident& resident) {
  const auto keeps = [&](int64_t pages) { return KeepsBound(model, *resident.budget, pages); };
  const auto at_end = [&](int32_t size) { return PagesAtEnd(model, resident, size); };
  const std::vector<int32_t> all = BestFirst(model, quality, *resident.budget);
  std::vector<int32_t> sizes;
  std::copy_if(all.begin(), all.end(), std::back_inserter(sizes),
               [&](int32_t size) { return keeps(at_end(size)); });
  if (!sizes.empty()) return sizes;
  const auto longest = std::min_element(all.begin(), all.end(), [&](int32_t a, int32_t b) {
    const bool a_starts = keeps(PagesNow(model, resident, a));
    const bool b_starts = keeps(PagesNow(model, resident, b));
    return a_starts != b_starts ? a_starts : at_end(a) < at_end(b);
  });
  return {*longest};
}

int32_t SmallestSize(const ModelGeometry& model, const Resident& resident) {
  const std::vector<int32_t> sizes = AllowedChunkSizes(model, *resident.budget);
  return *std::min_element(sizes.begin(), sizes.end(), [&](int32_t a, int32_t b) {
    return PagesAtEnd(model, resident, a) < PagesAtEnd(model, resident, b);
  });
}

std::optional<Change> BestCoarsening(const ModelGeometry& model, const Quality& quality,
                                     std::span<const Resident> residents, bool at_once) {
  std::optional<Change> best;
  double best_worth = 0;
  for (size_t i = residents.size(); i-- > 0;) {
    const Resident& resident = residents[i];
    if (!resident.budget->automatic) continue;
    if (!at_once && resident.tokens_left < kCoarsenTokensLeft) continue;
    const auto loss = [&](int32_t size) { return quality.Loss(*resident.budget, size); };
    const int64_t end_now = PagesAtEnd(model, resident, resident.chunk_size);
    for (const int32_t size : AllowedChunkSizes(model, *resident.budget)) {
      const int64_t end_then = PagesAtEnd(model, resident, size);
      const int64_t freed = end_now - resident.pages_shared - end_then;
      const int64_t freed_now = resident.pages_owned - PagesNow(model, resident, size);
      if (size == resident.chunk_size || freed <= 0 || (at_once && freed_now <= 0)) continue;
      if (!KeepsBound(model, *resident.budget, end_then)) continue;
      const double lost = loss(size) - loss(resident.chunk_size);
      const double worth = static_cast<double>(freed) / std::max(lost, kLeastLoss);
      if (worth <= best_worth) continue;
      best = Change{.resident = i, .chunk_size = size};
      best_worth = worth;
    }
  }
  return best;
}

std::optional<int32_t> SizeWithinBound(const ModelGeometry& model, const Quality& quality,
                                       const Resident& resident) {
  const int32_t size = StartSizes(model, quality, resident).front();
  if (size == resident.chunk_size) return std::nullopt;
  if (!KeepsBound(model, *resident.budget, PagesNow(model, resident, size))) return std::nullopt;
  return size;
}

std::vector<int32_t> Refinements(const ModelGeometry& model, const Quality& quality,
                                 const Resident& resident) {
  const bool early = resident.tokens_since_change < kRefineAfterTokens;
  const bool late = resident.end - resident.tokens < kRefineAfterTokens;
  if (!resident.budget->automatic || early || late) return {};
  std::vector<int32_t> sizes = BestFirst(model, quality, *resident.budget);
  std::erase_if(sizes, [&](int32_t size) {
    const Budget& budget = *resident.budget;
    return quality.Loss(budget, size) >= quality.Loss(budget, resident.chunk_size) ||
           !KeepsBound(model, budget, PagesAtEnd(model, resident, size));
  });
  return sizes;
}

}  // namespace catserve

#include "engine/schedule/memory_forecast.h"

#include <algorithm>
#include <cmath>

namespace catserve {
namespace {

constexpr double kMemory = 16;  // requests that LengthForecast looks back on, roughly
constexpr double kMargin = 1.25;

}  // namespace

int64_t PagesBetween(const ModelGeometry& model, int32_t chunk_size, int32_t from, int32_t to) {
  // PeakEntries without the lengths that a prefill skips, which for a long prompt are the fullest.
  int64_t peak =
      std::max(EntriesAtRest(model, chunk_size, from), EntriesAtRest(model, chunk_size, to));
  if (model.compresses()) {
    const int32_t last_full = (to + 1) / chunk_size * chunk_size - 1;  // before the last closing
    if (last_full > from) peak = std::max(peak, EntriesAtRest(model, chunk_size, last_full));
  }
  return PagesFor(peak);
}

int64_t ForecastPages(const ModelGeometry& model, std::vector<Holding> holdings,
                      int64_t pages_total) {
  const auto remaining = [](const Holding& h) { return h.stays ? INT32_MAX : h.end - h.tokens; };
  std::sort(holdings.begin(), holdings.end(),
            [&](const Holding& a, const Holding& b) { return remaining(a) > remaining(b); });
  std::vector<char> seen(pages_total, 0);
  std::vector<int64_t> shared(holdings.size(), 0);
  for (size_t i = 0; i < holdings.size(); ++i) {
    for (const PageId page : holdings[i].shareable) {
      shared[i] += seen[page];
      seen[page] = 1;
    }
  }
  // Every sequence only grows until it ends, so the sum is largest at an end.
  int64_t most = 0;
  for (size_t last = 0; last < holdings.size(); ++last) {
    int64_t pages = 0;
    for (size_t i = 0; i <= last; ++i) {  // those that still run when `last` ends
      const Holding& h = holdings[i];
      const int32_t to =
          h.stays ? h.end : h.tokens + std::min(remaining(holdings[last]), h.end - h.tokens);
      pages += PagesBetween(model, h.chunk_size, h.tokens, to) + h.extra_pages - shared[i];
    }
    most = std::max(most, pages);
  }
  return most;
}

void LengthForecast::Learn(int32_t generated, int32_t max_tokens) {
  if (max_tokens <= 0) return;
  share_ += (static_cast<double>(generated) / max_tokens - share_) / kMemory;
}

int32_t LengthForecast::Expect(int32_t generated, int32_t max_tokens) const {
  const auto expected =
      static_cast<int32_t>(std::ceil(std::min(1.0, share_ * kMargin) * max_tokens));
  return generated <= expected ? expected : max_tokens;
}

}  // namespace catserve

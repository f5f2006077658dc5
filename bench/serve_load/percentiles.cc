#include "bench/serve_load/percentiles.h"

#include <algorithm>
#include <cmath>

namespace catserve {

double NearestRank(const std::vector<double>& sorted, double percent) {
  if (sorted.empty()) return 0;
  // The small allowance keeps 99% of 100 values at rank 99 in spite of rounding.
  const double rank = std::ceil(percent / 100 * static_cast<double>(sorted.size()) - 1e-9);
  return sorted[static_cast<size_t>(std::max(rank, 1.0)) - 1];
}

Percentiles PercentilesOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  Percentiles result;
  result.count = static_cast<int64_t>(values.size());
  result.p50 = NearestRank(values, 50);
  result.p90 = NearestRank(values, 90);
  result.p99 = NearestRank(values, 99);
  result.max = NearestRank(values, 100);
  return result;
}

}  // namespace catserve

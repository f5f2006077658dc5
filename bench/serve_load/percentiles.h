// Percentiles by nearest rank: always a value that was measured, never one between two.
#pragma once

#include <cstdint>
#include <vector>

namespace catserve {

struct Percentiles {
  int64_t count = 0;
  double p50 = 0, p90 = 0, p99 = 0, max = 0;  // all 0 if nothing was measured
};

// The smallest value that at least `percent` of the values do not exceed; 0 if there is none.
// REQUIRES: sorted in ascending order, 0 < percent <= 100.
double NearestRank(const std::vector<double>& sorted, double percent);

Percentiles PercentilesOf(std::vector<double> values);

}  // namespace catserve

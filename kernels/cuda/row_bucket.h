// The numbers of rows that parts of steps are padded to: a graph is recorded for each of them, and
// a batch takes the smallest that holds it. Pure.
#pragma once

#include <span>

namespace catserve::cuda {

// 1, 2, 4, 8, then ever further apart: padding is less than half of a step, and less than a fifth
// above 128 rows.
std::span<const int> RowBuckets();
inline constexpr int kGraphRowsMax = 512;

// The smallest bucket of at least `rows`. REQUIRES: 1 <= rows <= kGraphRowsMax; a step of more rows
// runs without a graph.
int RowBucket(int rows);

}  // namespace catserve::cuda

#include "kernels/cuda/row_bucket.h"

#include <algorithm>
#include <array>

#include "kernels/check.h"

namespace catserve::cuda {
namespace {

constexpr std::array<int, 24> kBuckets = {1,   2,   4,   8,   16,  24,  32,  48,
                                          64,  80,  96,  128, 160, 192, 224, 256,
                                          288, 320, 352, 384, 416, 448, 480, kGraphRowsMax};

}  // namespace

std::span<const int> RowBuckets() { return kBuckets; }

int RowBucket(int rows) {
  CATSERVE_CHECK(rows >= 1 && rows <= kGraphRowsMax)
      << rows << " rows: graphs hold 1 to " << kGraphRowsMax << ", run the step without one";
  return *std::lower_bound(kBuckets.begin(), kBuckets.end(), rows);
}

}  // namespace catserve::cuda

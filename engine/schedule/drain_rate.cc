#include "engine/schedule/drain_rate.h"

#include <algorithm>

namespace catserve {

void DrainRate::Left(int64_t count, absl::Time now) {
  constexpr double kMemory = 16;  // departures looked back on, roughly
  if (count <= 0) return;
  if (last_ != absl::InfinitePast()) {
    const double weight = std::min(1.0, static_cast<double>(count) / kMemory);
    interval_ += weight * ((now - last_) / count - interval_);
  }
  last_ = now;
  refused_ = 0;
}

absl::Duration DrainRate::RetryAfter(absl::Time now) {
  ++refused_;
  const absl::Duration silent = last_ == absl::InfinitePast() ? absl::ZeroDuration() : now - last_;
  return std::clamp(std::max(interval_, silent) * refused_, kRetryLeast, kRetryMost);
}

}  // namespace catserve

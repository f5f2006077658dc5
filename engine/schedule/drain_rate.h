// How fast a queue drains, and so when a refused request should come back.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace catserve {

// Values of time never go back. Not thread-safe.
class DrainRate {
 public:
  // `count` requests have left the queue since it was last told.
  void Left(int64_t count, absl::Time now);

  // When one more refused request finds a place, if all those refused since the last departure come
  // back, too; within kRetryLeast and kRetryMost. Counts this one as refused.
  absl::Duration RetryAfter(absl::Time now);

  static constexpr absl::Duration kRetryLeast = absl::Milliseconds(50);
  static constexpr absl::Duration kRetryMost = absl::Seconds(60);

 private:
  absl::Duration interval_ = absl::Seconds(1);  // between departures, the last ones counting most
  absl::Time last_ = absl::InfinitePast();      // departure
  int64_t refused_ = 0;                         // since then
};

}  // namespace catserve

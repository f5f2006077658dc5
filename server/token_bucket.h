// How many tokens an owner may still spend.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"

namespace catserve {

// Holds at most a minute's worth and fills evenly. Charges may take it below zero: what was
// accepted runs to its end, and the debt is waited for. Reads no clock; time that goes back counts
// as standing still.
class TokenBucket {
 public:
  // Full. REQUIRES: per_minute >= 1.
  TokenBucket(int64_t per_minute, absl::Time now)
      : capacity_(static_cast<double>(per_minute)), balance_(capacity_), at_(now) {}

  // Zero while there is a token left; else how long until there is one.
  absl::Duration Wait(absl::Time now) {
    Fill(now);
    return balance_ >= 1 ? absl::ZeroDuration() : absl::Minutes((1 - balance_) / capacity_);
  }

  void Charge(int64_t tokens, absl::Time now) {
    Fill(now);
    balance_ -= static_cast<double>(tokens);
  }

  // From now on; what was spent stays spent. REQUIRES: per_minute >= 1.
  void SetRate(int64_t per_minute, absl::Time now) {
    Fill(now);
    const double capacity = static_cast<double>(per_minute);
    balance_ += capacity - capacity_;
    capacity_ = capacity;
  }

 private:
  void Fill(absl::Time now) {
    const absl::Duration passed = std::max(now - at_, absl::ZeroDuration());
    balance_ = std::min(capacity_, balance_ + capacity_ * absl::ToDoubleMinutes(passed));
    at_ = std::max(at_, now);
  }

  double capacity_;  // also the tokens of a minute
  double balance_;
  absl::Time at_;
};

}  // namespace catserve

#include "server/owner.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/admission.h"

namespace catserve {

void Seat::Charge(int64_t tokens, absl::Time now) { owner_->Charge(tokens, now); }

void Seat::Leave() {
  if (const std::shared_ptr<Owner> owner = std::move(owner_)) owner->Leave();
}

Owner::Owner(std::string name, const OwnerLimits& limits, absl::Time now) : name_(std::move(name)) {
  SetLimits(limits, now);
}

void Owner::SetLimits(const OwnerLimits& limits, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  limits_ = limits;
  if (limits.tokens_per_minute_max == 0) {
    bucket_.reset();
  } else if (bucket_.has_value()) {
    bucket_->SetRate(limits.tokens_per_minute_max, now);
  } else {
    bucket_.emplace(limits.tokens_per_minute_max, now);
  }
}

absl::StatusOr<std::unique_ptr<Seat>> Owner::Enter(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  if (limits_.requests_max > 0 && requests_ >= limits_.requests_max) {
    return absl::ResourceExhaustedError(
        absl::StrCat("your limit of ", limits_.requests_max,
                     " requests at once is reached; wait for one's end"));
  }
  const absl::Duration wait = bucket_ ? bucket_->Wait(now) : absl::ZeroDuration();
  if (wait > absl::ZeroDuration()) {
    return ComeBack(absl::StrCat("your limit of ", limits_.tokens_per_minute_max,
                                 " tokens per minute is reached"),
                    wait);
  }
  ++requests_;
  return std::make_unique<Seat>(shared_from_this());
}

void Owner::Charge(int64_t tokens, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  if (bucket_.has_value()) bucket_->Charge(tokens, now);
}

void Owner::Leave() {
  absl::MutexLock lock(&mutex_);
  --requests_;
}

}  // namespace catserve

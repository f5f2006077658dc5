// One owner's share of the server.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/config/tokens_file.h"
#include "server/token_bucket.h"

namespace catserve {

class Owner;

// A request of an owner, from before its message is read until its client has its end.
class Seat {
 public:
  explicit Seat(std::shared_ptr<Owner> owner) : owner_(std::move(owner)) {}
  ~Seat() { Leave(); }
  Seat(const Seat&) = delete;
  Seat& operator=(const Seat&) = delete;

  // Tokens read or drawn for the request. Any thread, not after Leave.
  void Charge(int64_t tokens, absl::Time now);

  // Makes room for the owner's next request. Once or never; not beside Charge.
  void Leave();

 private:
  std::shared_ptr<Owner> owner_;  // null once left
};

// Counts what an owner's requests use, whatever token they came with. Thread-safe.
class Owner : public std::enable_shared_from_this<Owner> {
 public:
  Owner(std::string name, const OwnerLimits& limits, absl::Time now);

  const std::string& name() const { return name_; }

  // Requests that run stay; spent tokens stay spent.
  void SetLimits(const OwnerLimits& limits, absl::Time now);

  // Errors: RESOURCE_EXHAUSTED naming the limit, with when to try again if that is known.
  absl::StatusOr<std::unique_ptr<Seat>> Enter(absl::Time now);

 private:
  friend class Seat;
  void Charge(int64_t tokens, absl::Time now);
  void Leave();

  const std::string name_;
  absl::Mutex mutex_;
  OwnerLimits limits_ ABSL_GUARDED_BY(mutex_);
  int64_t requests_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<TokenBucket> bucket_ ABSL_GUARDED_BY(mutex_);  // none: no limit
};

}  // namespace catserve

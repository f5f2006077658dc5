// Whether one more request may wait: room, shared fairly, and time enough before its deadline.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/schedule/drain_rate.h"
#include "engine/schedule/request.h"

namespace catserve {

// Room: `requests_max` requests may wait. An owner that has less than its equal share of them gets
// in even where others have filled the queue, up to twice as many requests in all; so nobody who
// was accepted is turned out again, and one owner alone has all of it.
//
// Time: how much work leaves the queue per second is observed while somebody waits. A request
// whose owner's own queue, and as much of each other's (WaitingLine), takes longer than its
// deadline leaves would wait for nothing: it is refused at once. Whatever is not certain counts in
// the request's favour: requests of less priority, what runs at present, its own work. Nothing is
// estimated before kObservedLeast requests have left a queue.
//
// Values of time never go back. Not thread-safe.
class QueueGate {
 public:
  explicit QueueGate(int32_t requests_max) : requests_max_(requests_max) {}

  // Takes the request into account, or returns RESOURCE_EXHAUSTED with when to try again
  // (RetryAfter, admission.h). REQUIRES: the key does not wait.
  absl::Status Enter(RequestKey key, const Request& request, absl::Time now);

  // These no longer wait; to be told after every step, also of none.
  void Leave(std::span<const RequestKey> keys, absl::Time now);

  // At least so long a request that comes now waits; nothing if that is not known.
  std::optional<absl::Duration> EstimateWait(const Request& request) const;

  int32_t requests() const { return static_cast<int32_t>(waiting_.size()); }

  static constexpr int32_t kObservedLeast = 16;

 private:
  struct Waiting {
    std::string owner;
    int32_t priority = 0;
    int64_t work = 0;
  };
  struct Owner {
    int32_t requests = 0;
    int64_t work = 0;
    std::map<int32_t, int64_t> work_by_priority;
  };

  bool HasRoom(const std::string& owner) const;
  absl::Status CheckDeadline(const Request& request, absl::Time now) const;
  int64_t WorkAhead(const Request& request) const;
  void Observe(int64_t left, int64_t work, absl::Time now);

  const int32_t requests_max_;
  std::unordered_map<RequestKey, Waiting> waiting_;
  std::map<std::string, Owner> owners_;  // who have requests waiting
  DrainRate drain_rate_;

  // Observed while somebody waited, the last departures counting most.
  bool busy_ = false;  // somebody waited when it was last told
  absl::Time told_;
  absl::Duration silent_;  // busy since the last departure
  double seconds_ = 0;
  double work_ = 0;  // that left in them
  int64_t observed_ = 0;
};

}  // namespace catserve

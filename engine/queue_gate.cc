#include "engine/queue_gate.h"

#include <algorithm>
#include <cmath>

#include "engine/admission.h"
#include "engine/schedule/budget.h"

namespace catserve {
namespace {

// Departures looked back on, roughly.
constexpr double kMemory = 32;

}  // namespace

absl::Status QueueGate::Enter(RequestKey key, const Request& request, absl::Time now) {
  if (!HasRoom(request.owner)) {
    return QueueFull(requests_max_, requests(), drain_rate_.RetryAfter(now));
  }
  if (absl::Status status = CheckDeadline(request, now); !status.ok()) return status;
  const int64_t work = LargestWork(request);
  waiting_[key] = {.owner = request.owner, .priority = request.priority, .work = work};
  Owner& owner = owners_[request.owner];
  ++owner.requests;
  owner.work += work;
  owner.work_by_priority[request.priority] += work;
  return absl::OkStatus();
}

bool QueueGate::HasRoom(const std::string& owner) const {
  if (requests() < requests_max_) return true;
  const auto found = owners_.find(owner);
  const bool is_new = found == owners_.end();
  const auto owners = static_cast<int32_t>(owners_.size()) + (is_new ? 1 : 0);
  const int32_t share = std::max(1, requests_max_ / owners);
  return (is_new || found->second.requests < share) && requests() < 2 * int64_t{requests_max_};
}

absl::Status QueueGate::CheckDeadline(const Request& request, absl::Time now) const {
  const std::optional<absl::Duration> wait = EstimateWait(request);
  const absl::Duration left = request.deadline - now;
  const bool too_late = left <= absl::ZeroDuration();  // the scheduler ends it, and says why
  if (too_late || !wait || *wait <= left) return absl::OkStatus();
  return Hopeless({.requests = requests(), .work = WorkAhead(request), .wait = *wait}, left);
}

// In the request's own line, those who come before it for certain; of each other owner as much.
int64_t QueueGate::WorkAhead(const Request& request) const {
  const auto own = owners_.find(request.owner);
  if (own == owners_.end()) return 0;
  int64_t before = 0;
  for (const auto& [priority, work] : own->second.work_by_priority) {
    if (priority <= request.priority) before += work;
  }
  int64_t ahead = before;
  for (const auto& [name, owner] : owners_) {
    if (name != request.owner) ahead += std::min(before, owner.work);
  }
  return ahead;
}

std::optional<absl::Duration> QueueGate::EstimateWait(const Request& request) const {
  if (observed_ < kObservedLeast || work_ <= 0) return std::nullopt;
  return absl::Seconds(static_cast<double>(WorkAhead(request)) * seconds_ / work_);
}

void QueueGate::Leave(std::span<const RequestKey> keys, absl::Time now) {
  int64_t left = 0, work = 0;
  for (const RequestKey key : keys) {
    const auto found = waiting_.find(key);
    if (found == waiting_.end()) continue;
    const Waiting& request = found->second;
    const auto owner = owners_.find(request.owner);
    const auto level = owner->second.work_by_priority.find(request.priority);
    ++left;
    work += request.work;
    owner->second.work -= request.work;
    level->second -= request.work;
    if (level->second == 0) owner->second.work_by_priority.erase(level);
    if (--owner->second.requests == 0) owners_.erase(owner);
    waiting_.erase(found);
  }
  drain_rate_.Left(left, now);
  Observe(left, work, now);
}

void QueueGate::Observe(int64_t left, int64_t work, absl::Time now) {
  if (busy_) {
    silent_ += now - told_;
    if (left > 0) {
      const double kept = std::pow(1 - 1 / kMemory, left);
      seconds_ = kept * seconds_ + absl::ToDoubleSeconds(silent_);
      work_ = kept * work_ + static_cast<double>(work);
      observed_ += left;
      silent_ = absl::ZeroDuration();
    }
  }
  told_ = now;
  busy_ = !waiting_.empty();
  if (!busy_) silent_ = absl::ZeroDuration();
}

}  // namespace catserve

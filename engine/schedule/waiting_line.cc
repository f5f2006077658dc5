#include "engine/schedule/waiting_line.h"

#include <algorithm>
#include <tuple>

#include "kernels/check.h"

namespace catserve {
namespace {

// One that was preempted goes on at the time at which it first started.
int64_t TimeOf(const RequestState& request, int64_t owners_time) {
  return request.started_at.value_or(owners_time);
}

}  // namespace

void WaitingLine::Insert(const RequestPtr& request) {
  Owner& owner = owners_[request->request.owner];
  if (owner.line.empty()) owner.time = std::max(owner.time, now_);
  CATSERVE_CHECK(owner.line.insert(request).second) << "a request waits twice";
  ++size_;
}

bool WaitingLine::Erase(const RequestPtr& request) {
  const auto owner = owners_.find(request->request.owner);
  if (owner == owners_.end() || owner->second.line.erase(request) == 0) return false;
  --size_;
  if (Forgettable(owner->second)) owners_.erase(owner);
  return true;
}

void WaitingLine::Start(const RequestPtr& request) {
  Owner& owner = owners_.at(request->request.owner);
  CATSERVE_CHECK(owner.line.erase(request) == 1) << "a request starts that does not wait";
  --size_;
  if (request->started_at) return;
  request->started_at = owner.time;
  now_ = std::max(now_, owner.time);
  owner.time += request->work;
  std::erase_if(owners_, [this](const auto& entry) { return Forgettable(entry.second); });
}

void WaitingLine::Settle(const RequestState& request, int64_t work) {
  const auto owner = owners_.find(request.request.owner);
  if (owner == owners_.end()) return;
  owner->second.time = std::max(now_, owner->second.time + work - request.work);
}

void WaitingLine::Forget() {
  CATSERVE_CHECK(size_ == 0) << size_ << " requests wait that nobody knows";
  owners_.clear();
  now_ = 0;
}

bool WaitingLine::Walk::Later::operator()(const Cursor& a, const Cursor& b) const {
  const RequestState &first = **a.next, &other = **b.next;
  return std::tuple(TimeOf(first, a.time), first.turn, first.key) >
         std::tuple(TimeOf(other, b.time), other.turn, other.key);
}

RequestPtr WaitingLine::Walk::Next() {
  if (cursors_.empty()) return nullptr;
  Cursor cursor = cursors_.top();
  cursors_.pop();
  RequestPtr request = *cursor.next++;
  if (!request->started_at) cursor.time += request->work;
  if (cursor.next != cursor.end) cursors_.push(cursor);
  return request;
}

WaitingLine::Walk WaitingLine::InOrder() const {
  Walk walk;
  for (const auto& [name, owner] : owners_) {
    if (owner.line.empty()) continue;
    walk.cursors_.push({owner.time, owner.line.begin(), owner.line.end()});
  }
  return walk;
}

RequestPtr WaitingLine::FirstNotPaused() const {
  Walk walk = InOrder();
  RequestPtr request = walk.Next();
  while (request != nullptr && request->paused) request = walk.Next();
  return request;
}

std::vector<RequestPtr> WaitingLine::All() const {
  std::vector<RequestPtr> all;
  for (const auto& [name, owner] : owners_) {
    all.insert(all.end(), owner.line.begin(), owner.line.end());
  }
  return all;
}

}  // namespace catserve

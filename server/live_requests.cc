#include "server/live_requests.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/token_stream.h"

namespace catserve {

absl::Status LiveRequests::Add(const RequestName& name,
                               const std::shared_ptr<TokenStream>& stream) {
  absl::MutexLock lock(&mutex_);
  if (!HasRoom(name.owner)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(requests_max_, " requests are live, their readers are slow; try again later"));
  }
  if (!names_.emplace(name, stream.get()).second) {
    return absl::AlreadyExistsError(
        absl::StrCat("request_id \"", name.id,
                     "\" belongs to a live request; use another one or wait for its end"));
  }
  streams_.emplace(stream.get(), stream);
  ++owners_[name.owner];
  return absl::OkStatus();
}

bool LiveRequests::HasRoom(const std::string& owner) const {
  if (streams_.size() < requests_max_) return true;
  const auto found = owners_.find(owner);
  const size_t own = found == owners_.end() ? 0 : found->second;
  const size_t owners = owners_.size() + (own == 0 ? 1 : 0);
  return own < std::max<size_t>(1, requests_max_ / owners) && streams_.size() < 2 * requests_max_;
}

void LiveRequests::Release(const RequestName& name) {
  absl::MutexLock lock(&mutex_);
  names_.erase(name);
}

void LiveRequests::Remove(const RequestName& name, const TokenStream* stream) {
  absl::MutexLock lock(&mutex_);
  if (streams_.erase(stream) == 0) return;
  const auto owner = owners_.find(name.owner);
  if (--owner->second == 0) owners_.erase(owner);
  const auto it = names_.find(name);
  if (it != names_.end() && it->second == stream) names_.erase(it);
}

std::shared_ptr<TokenStream> LiveRequests::Find(const RequestName& name) const {
  absl::MutexLock lock(&mutex_);
  const auto it = names_.find(name);
  return it == names_.end() ? nullptr : streams_.at(it->second).lock();
}

void LiveRequests::CancelStalled(absl::Time since) const {
  std::vector<std::shared_ptr<TokenStream>> streams;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [key, stream] : streams_) streams.push_back(stream.lock());
  }
  for (const std::shared_ptr<TokenStream>& stream : streams) {
    if (stream != nullptr) stream->CancelIfStalled(since);
  }
}

bool LiveRequests::WaitUntilEmpty(absl::Time deadline) const {
  const auto empty = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return streams_.empty(); };
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithDeadline(absl::Condition(&empty), deadline);
}

}  // namespace catserve

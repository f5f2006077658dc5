// The requests that are neither refused nor done, by owner and id.
#pragma once

#include <compare>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace catserve {

class TokenStream;

// Ids are their owner's own: two owners may use the same one and never learn of it.
struct RequestName {
  std::string owner;  // empty: nobody in particular
  std::string id;

  bool operator<(const RequestName& other) const {
    return std::tie(owner, id) < std::tie(other.owner, other.id);
  }
};

// Thread-safe.
class LiveRequests {
 public:
  // `requests_max`: those that wait or run in the engine, and those whose clients still read. As in
  // the engine's queue (QueueGate), an owner with less than its equal share of them gets in even
  // where others have filled them, up to twice as many in all.
  explicit LiveRequests(size_t requests_max) : requests_max_(requests_max) {}

  // Errors: ALREADY_EXISTS, RESOURCE_EXHAUSTED.
  absl::Status Add(const RequestName& name, const std::shared_ptr<TokenStream>& stream);

  // Frees the name for another request: the stream's last message is on its way. Once a stream.
  void Release(const RequestName& name);

  // Forgets the stream, its name released or not.
  void Remove(const RequestName& name, const TokenStream* stream);

  // Null if there is none.
  std::shared_ptr<TokenStream> Find(const RequestName& name) const;

  // Cancels the calls whose readers have not taken a message since before `since`.
  void CancelStalled(absl::Time since) const;

  // False if some are left at `deadline`.
  bool WaitUntilEmpty(absl::Time deadline) const;

 private:
  bool HasRoom(const std::string& owner) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  const size_t requests_max_;
  mutable absl::Mutex mutex_;
  std::map<const TokenStream*, std::weak_ptr<TokenStream>> streams_ ABSL_GUARDED_BY(mutex_);
  // Of those not at an end.
  std::map<RequestName, const TokenStream*> names_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, size_t> owners_ ABSL_GUARDED_BY(mutex_);  // streams of each, > 0
};

}  // namespace catserve

// The requests that are neither refused nor done, by id.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace catserve {

class TokenStream;

// Thread-safe.
class LiveRequests {
 public:
  // `requests_max`: those that wait or run in the engine, and those whose clients still read.
  explicit LiveRequests(size_t requests_max) : requests_max_(requests_max) {}

  // Errors: ALREADY_EXISTS, RESOURCE_EXHAUSTED.
  absl::Status Add(const std::string& id, const std::shared_ptr<TokenStream>& stream);

  // Frees the id for another request: the stream's last message is on its way. Once a stream.
  void Release(const std::string& id);

  // Forgets the stream, its id released or not.
  void Remove(const std::string& id, const TokenStream* stream);

  // Null if there is none.
  std::shared_ptr<TokenStream> Find(const std::string& id) const;

  // Cancels the calls whose readers have not taken a message since before `since`.
  void CancelStalled(absl::Time since) const;

  // False if some are left at `deadline`.
  bool WaitUntilEmpty(absl::Time deadline) const;

 private:
  const size_t requests_max_;
  mutable absl::Mutex mutex_;
  std::map<const TokenStream*, std::weak_ptr<TokenStream>> streams_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, const TokenStream*> ids_ ABSL_GUARDED_BY(mutex_);  // of those not at an end
};

}  // namespace catserve

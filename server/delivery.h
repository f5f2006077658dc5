// The one thread on which generated tokens become text and messages.
#pragma once

#include <deque>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace catserve {

// Runs tasks one after the other, in order. Streams keep at most one task each in it, so its queue
// is bounded by the number of live streams. Does no network waits: tasks start writes and return.
class Delivery {
 public:
  Delivery();
  ~Delivery();  // runs what was posted, then ends
  Delivery(const Delivery&) = delete;
  Delivery& operator=(const Delivery&) = delete;

  // Any thread; never waits for a task.
  void Post(std::function<void()> task);

 private:
  void Run();

  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace catserve

// Looks at files again and again, and takes over what is new in them.
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace catserve {

// Files that belong together.
struct WatchedFiles {
  struct File {
    std::string key;  // of the configuration, which named it
    std::string path;
  };
  std::string name;  // for the log: "tokens"
  std::vector<File> files;
  size_t bytes_max = 0;  // of each
  // Takes over the contents, in the order of `files`, or leaves everything as it is. Errors:
  // INVALID_ARGUMENT naming the file.
  std::function<absl::Status(const std::vector<std::string>&)> take;
};

// Compares contents, not times, so that any way of replacing files is seen. What cannot be read or
// taken is told once and tried again when it has changed.
class Reloader {
 public:
  explicit Reloader(std::vector<WatchedFiles> watched);
  ~Reloader();

  // For the start. Errors: those of the first files that cannot be read or taken.
  absl::Status LoadAll();

  // From now on looks every `interval`, on a thread of its own. Once.
  void Watch(absl::Duration interval);

  // Looks at once, also at what was refused before. Any thread; does not wait.
  void LookNow();

 private:
  struct Subject {
    WatchedFiles files;
    std::string seen;  // a hash of what was read last
  };
  static void Look(Subject& subject, bool again);
  void Run(absl::Duration interval);

  std::vector<Subject> subjects_;  // used by LoadAll, then by the thread
  absl::Mutex mutex_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool asked_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace catserve

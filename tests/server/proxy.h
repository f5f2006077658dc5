// A connection that a test can cut.
#pragma once

#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace catserve::testing {

// Passes bytes between whoever connects to address() and a server on this machine.
class Proxy {
 public:
  explicit Proxy(const std::string& upstream);  // 127.0.0.1:port
  ~Proxy();
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  std::string address() const;

  // Ends every connection without a word, and takes no more.
  void Cut();

 private:
  void Accept();
  static void Copy(int from, int to);

  const int upstream_port_;
  int listener_ = -1;
  int port_ = 0;
  absl::Mutex mutex_;
  bool cut_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<int> sockets_ ABSL_GUARDED_BY(mutex_);  // closed by the destructor
  std::vector<std::thread> copies_;                   // of the accepting thread until it ends
  std::thread accepting_;
};

}  // namespace catserve::testing

// What the emulated devices of this process have been given: for tests that ask which way work
// went, where results alone cannot tell.
#pragma once

#include <cstdint>
#include <map>

namespace catserve::cuda::emulator {

// Not thread-safe: one thread gives work to a device at a time.
class Work {
 public:
  static Work& Given();

  template <typename Args>
  int64_t Launches(void (*kernel)(Args)) const {
    const auto found = launches_.find(Key(kernel));
    return found == launches_.end() ? 0 : found->second;
  }

  // Copies from the host's memory to a device's.
  int64_t uploads() const { return uploads_; }

  template <typename Args>
  void CountLaunch(void (*kernel)(Args)) {
    ++launches_[Key(kernel)];
  }
  void CountUpload() { ++uploads_; }

 private:
  template <typename Args>
  static uintptr_t Key(void (*kernel)(Args)) {
    return reinterpret_cast<uintptr_t>(kernel);
  }

  std::map<uintptr_t, int64_t> launches_;
  int64_t uploads_ = 0;
};

}  // namespace catserve::cuda::emulator

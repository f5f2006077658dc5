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

  template <typename Args>
  void CountLaunch(void (*kernel)(Args)) {
    ++launches_[Key(kernel)];
  }

 private:
  template <typename Args>
  static uintptr_t Key(void (*kernel)(Args)) {
    return reinterpret_cast<uintptr_t>(kernel);
  }

  std::map<uintptr_t, int64_t> launches_;
};

}  // namespace catserve::cuda::emulator

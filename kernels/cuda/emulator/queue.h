// A stream of the emulated device: what was put in is done when somebody waits for it, and no
// sooner. So whoever reads a result too early, or changes a source too early, sees it.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/operations.h"

namespace catserve::cuda::emulator {

// Not thread-safe.
class Queue {
 public:
  void Add(std::function<void()> work) { waiting_.push_back(std::move(work)); }

  // Every launch runs in another order of its threads. Aborts on a grid that no device takes.
  void AddLaunch(const LaunchShape& shape, std::function<void()> thread);

  void RunAll();

 private:
  std::vector<std::function<void()>> waiting_;
  uint32_t launches_ = 0;
};

inline Queue& QueueOf(Stream stream) { return *static_cast<Queue*>(stream.handle); }

}  // namespace catserve::cuda::emulator

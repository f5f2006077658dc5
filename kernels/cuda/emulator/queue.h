// A stream of the emulated device: what was put in is done when somebody waits for it, and no
// sooner. So whoever reads a result too early, or changes a source too early, sees it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <utility>

#include "kernels/cuda/emulator/pace.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/operations.h"

namespace catserve::cuda::emulator {

// Not thread-safe.
class Queue {
 public:
  explicit Queue(Pace pace) : pace_(pace) {}

  void Add(std::function<void()> work) {
    waiting_.push_back(std::move(work));
    if (pace_ == Pace::kEager) RunAll();
  }

  // Every launch runs in another order of its threads. Aborts on a grid that no device takes.
  void AddLaunch(const LaunchShape& shape, std::function<void()> thread);

  // How much was put in so far.
  int64_t given() const { return done_ + static_cast<int64_t>(waiting_.size()); }
  // Does what was put in first, up to so much in all; nothing if that is done.
  void RunTo(int64_t given);
  void RunAll() { RunTo(given()); }

 private:
  const Pace pace_;
  std::deque<std::function<void()>> waiting_;
  int64_t done_ = 0;
  uint32_t launches_ = 0;
};

inline Queue& QueueOf(Stream stream) { return *static_cast<Queue*>(stream.handle); }

}  // namespace catserve::cuda::emulator

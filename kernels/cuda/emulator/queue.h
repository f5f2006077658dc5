// A stream of the emulated device: what was put in is done when somebody waits for it, and no
// sooner. So whoever reads a result too early, or changes a source too early, sees it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/cuda/emulator/pace.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/operations.h"

namespace catserve::cuda::emulator {

// Not thread-safe.
class Queue {
 public:
  explicit Queue(Pace pace) : pace_(pace) {}

  void Add(std::function<void()> work) {
    if (recorded_) return recorded_->push_back(std::move(work));
    waiting_.push_back(std::move(work));
    if (pace_ == Pace::kEager) RunAll();
  }

  // What is added between the two is kept for EndCapture, and not done.
  void BeginCapture() { recorded_.emplace(); }
  std::vector<std::function<void()>> EndCapture() {
    return std::move(*std::exchange(recorded_, std::nullopt));
  }
  bool capturing() const { return recorded_.has_value(); }

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
  std::optional<std::vector<std::function<void()>>> recorded_;
  int64_t done_ = 0;
  uint32_t launches_ = 0;
};

inline Queue& QueueOf(Stream stream) { return *static_cast<Queue*>(stream.handle); }

}  // namespace catserve::cuda::emulator

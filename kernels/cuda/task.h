// Work for the device as a value: a launch and what it is given. It can be kept, and compared with
// what the device was given before.
#pragma once

#include <concepts>
#include <memory>
#include <tuple>
#include <utility>

#include "kernels/cuda/operations.h"

namespace catserve::cuda {

class Task {
 public:
  virtual ~Task() = default;

  virtual void Run(Stream stream) const = 0;
  // Whether the other is the same launch of equal arguments: the same work at the same addresses.
  virtual bool Equals(const Task& other) const = 0;
};

// kLaunch(args..., stream).
template <auto kLaunch, typename... Args>
class LaunchTask final : public Task {
 public:
  static_assert((std::equality_comparable<Args> && ...), "arguments are compared with later ones");

  explicit LaunchTask(Args... args) : args_(std::move(args)...) {}

  void Run(Stream stream) const override {
    std::apply([&](const Args&... args) { kLaunch(args..., stream); }, args_);
  }
  bool Equals(const Task& other) const override {
    const auto* const same = dynamic_cast<const LaunchTask*>(&other);
    return same != nullptr && same->args_ == args_;
  }

 private:
  std::tuple<Args...> args_;
};

template <auto kLaunch, typename... Args>
std::unique_ptr<Task> MakeTask(Args... args) {
  return std::make_unique<LaunchTask<kLaunch, Args...>>(std::move(args)...);
}

}  // namespace catserve::cuda

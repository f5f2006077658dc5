// What the tests of emulated kernels share: arrays of any type, and how a kernel is run.
#pragma once

#include <cstring>
#include <span>
#include <vector>

#include "kernels/cuda/device.h"
#include "tests/kernels/device.h"

namespace catserve::cuda::testing {

using ::catserve::testing::Random;
using ::catserve::testing::Tensor;

template <typename T>
std::vector<T> Narrow(std::span<const float> values) {
  std::vector<T> narrow;
  narrow.reserve(values.size());
  for (const float value : values) narrow.push_back(FromFloat<T>(value));
  return narrow;
}

template <typename T>
std::vector<float> Widen(std::span<const T> values) {
  std::vector<float> wide;
  wide.reserve(values.size());
  for (const T value : values) wide.push_back(ToFloat(value));
  return wide;
}
template <typename T>
std::vector<float> Widen(const std::vector<T>& values) {
  return Widen(std::span<const T>(values));
}

// Every byte 0xff: NaN in every float type, scales included.
template <typename T>
std::vector<T> Poisoned(int64_t size) {
  std::vector<T> values(size);
  if (size > 0) std::memset(static_cast<void*>(values.data()), 0xff, size * sizeof(T));
  return values;
}

// Runs a kernel in several orders of its threads, `out` poisoned before each: equal bits, always.
template <typename T, typename Kernel>
std::vector<float> InEveryOrder(std::vector<T>& out, const LaunchShape& shape, Kernel kernel) {
  std::vector<T> first;
  for (const uint32_t seed : {0u, 5u, 6u}) {
    std::memset(static_cast<void*>(out.data()), 0xff, out.size() * sizeof(T));  // in place
    emulator::Launch(shape, seed, kernel);
    if (first.empty()) first = out;
    EXPECT_EQ(std::memcmp(first.data(), out.data(), out.size() * sizeof(T)), 0)
        << "the result depends on the order of threads";
  }
  return Widen(out);
}

}  // namespace catserve::cuda::testing

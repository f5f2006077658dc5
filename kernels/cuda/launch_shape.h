// The grid of a kernel, worked out on the host: a plain value, so that a launch on a device and one
// in the emulator cannot differ.
#pragma once

#include <cstdint>

namespace catserve::cuda {

inline constexpr int kWarpThreads = 32;

struct LaunchShape {
  uint32_t blocks_x = 1;
  uint32_t blocks_y = 1;
  uint32_t threads = kWarpThreads;  // in a block: whole warps, at most 1,024
};

constexpr int64_t DivideUp(int64_t n, int64_t by) { return (n + by - 1) / by; }

}  // namespace catserve::cuda

// CUDA's execution model on one thread of a CPU, for tests of kernels where there is no GPU.
//
// Each thread of a block is a fiber; blocks run one after another. A fiber runs until it meets a
// collective, so the order in which threads reach shared and global memory is the emulator's
// choice. A seed shuffles it: an odd one lets a warp run far ahead, an even one lets random warps
// rest, and a result that depends on it differs between seeds. Shared memory is NaN at the start of
// a block.
//
// A kernel that CUDA leaves undefined ends the process with a message that names the thread and the
// place: threads of a warp, or of a block, that meet different collectives; a barrier which a
// thread that returned will never reach; a shuffle from a lane that is none; a 16-byte load from an
// address that is no multiple of 16. What it cannot show: speed, memory order between blocks, the
// rounding of ex2.approx, and anything that only a device's compiler does.
//
// Not thread-safe: one launch at a time in a thread. Collectives always take all 32 lanes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>

#include "kernels/cuda/launch_shape.h"

namespace catserve::cuda::emulator {

// Where in the source a collective stands. (clang 14 has no std::source_location.)
struct Place {
  const char* file = "";
  int line = 0;

  static constexpr Place Current(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

// Runs `thread` for every thread of every block. Seed 0: threads advance in ascending order.
void Launch(const LaunchShape& shape, uint32_t seed, const std::function<void()>& thread);

// -- For kernels/cuda/emulator/device.h: valid within a launch, where they mean the running thread.

struct ThreadIndex {
  uint32_t thread = 0;
  uint32_t block_x = 0;
  uint32_t block_y = 0;
};
const ThreadIndex& Index();
const LaunchShape& Shape();

void SyncBlock(Place place);

// Every lane of the warp gives `bytes` at `value`; the result is what all of them gave, lane by
// lane, and stays until this lane's next collective.
struct LaneValue {
  alignas(8) std::byte bytes[32];
};
std::span<const LaneValue, kWarpThreads> ExchangeInWarp(const void* value, size_t bytes,
                                                        Place place);

// A static __shared__ array may have this many bytes.
inline constexpr size_t kSharedBytesMax = size_t{48} * 1024;
void* SharedMemory(size_t bytes, Place place);

[[noreturn]] void Die(const char* what, Place place);

template <typename T>
T ValueOf(const LaneValue& lane) {
  T value;
  std::memcpy(&value, lane.bytes, sizeof(T));
  return value;
}

}  // namespace catserve::cuda::emulator

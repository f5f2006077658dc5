// What a kernel of this folder may use beside plain C++: one vocabulary, which nvcc turns into
// instructions and the emulator into fibers.
//
//   ThreadX BlockX BlockY BlocksX ThreadsPerBlock Lane WarpInBlock   where this thread is
//   Launch                             on the host: starts a kernel, in order with its stream
//   SyncBlock SyncWarp                 barriers
//   Shuffle ShuffleXor                 a value of another lane; all 32 lanes take part
//   CATSERVE_SHARED(Type, name)        the kernel's one structure of shared memory
//   AtomicAdd                          on integers only: floats would add in any order
//   LoadVector StoreVector             2, 4, 8 or 16 bytes at once, of memory nobody writes; 16
//   LoadPair StorePair                 two numbers of 16 bits at once
//   ToFloat FromFloat                  narrow types; rounds to nearest even
//   Exp2 MulHigh                       2^x within 2 ulp, the high half of a 64-bit product
//   MatrixMultiplyAdd                  the tensor cores' m16n8k16 tile
#pragma once

#ifdef __CUDACC__
#include "kernels/cuda/device_nvcc.h"
#else
#include "kernels/cuda/emulator/device.h"
#endif

namespace catserve::cuda {

__device__ inline uint32_t BitsOf(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits;
}
__device__ inline float FloatOf(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

__device__ inline int Lane() { return ThreadX() % kWarpThreads; }
__device__ inline int WarpInBlock() { return ThreadX() / kWarpThreads; }

// The sum, or the largest, over groups of `kLanes` neighbouring lanes; every lane gets it. A fixed
// tree, so the same bits in every run.
template <int kLanes = kWarpThreads>
__device__ inline float SumOverLanes(float x) {
  CATSERVE_UNROLL
  for (int step = 1; step < kLanes; step *= 2) x += ShuffleXor(x, step);
  return x;
}

template <int kLanes = kWarpThreads>
__device__ inline float MaxOverLanes(float x) {
  CATSERVE_UNROLL
  for (int step = 1; step < kLanes; step *= 2) x = fmaxf(x, ShuffleXor(x, step));
  return x;
}

}  // namespace catserve::cuda

// out[i] = x[i], rounded to 16 bits: what a product on tensor cores reads, for rows that are F32.
// The CPU has no twin: it multiplies F32.
#pragma once

#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/operations.h"

namespace catserve::cuda {

inline constexpr int kNarrowThreads = 256;

inline LaunchShape NarrowRowsShape(const NarrowRowsArgs& args) {
  return {.blocks_x = static_cast<uint32_t>(args.rows),
          .blocks_y = static_cast<uint32_t>(DivideUp(args.width, kNarrowThreads)),
          .threads = kNarrowThreads};
}

template <typename T>
__global__ void __launch_bounds__(kNarrowThreads)
    NarrowRows(const __grid_constant__ NarrowRowsArgs args) {
  const int i = BlockY() * kNarrowThreads + ThreadX();
  if (i >= args.width) return;
  const float x = args.x[BlockX() * args.x_stride + i];
  static_cast<T*>(args.out)[BlockX() * args.out_stride + i] = ToActivation<T>(x);
}

}  // namespace catserve::cuda

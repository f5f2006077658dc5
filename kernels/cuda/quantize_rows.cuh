// out[i] = x[i] / scale[i], rounded to E4M3, with scale[i] = the largest magnitude of x[i] / 448:
// what a product with weights of E4M3 reads. Zeros where a row has none but zeros; a row with a
// number that is none, or infinite, has a scale that makes its products none. A block to a row. The
// CPU has no twin: it has no weights of E4M3.
#pragma once

#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/operations.h"

namespace catserve::cuda {

inline constexpr int kQuantizeThreads = 256;

inline LaunchShape QuantizeRowsShape(const QuantizeRowsArgs& args) {
  return {.blocks_x = static_cast<uint32_t>(args.rows), .threads = kQuantizeThreads};
}

__global__ void __launch_bounds__(kQuantizeThreads)
    QuantizeRows(const __grid_constant__ QuantizeRowsArgs args) {
  CATSERVE_SHARED(BlockScratch, scratch);
  const int64_t from = BlockX() * args.x_stride;
  uint32_t largest = 0;  // by bits, which order as magnitudes do, with NaN above all
  for (int i = ThreadX(); i < args.width; i += kQuantizeThreads) {
    const uint32_t bits = BitsOf(fabsf(LoadActivation(args.x, args.type, from + i)));
    largest = bits > largest ? bits : largest;
  }
  largest = BlockReduce<kQuantizeThreads>(largest, Larger(), scratch);
  const float scale = FloatOf(largest) / kScaledMax<E4M3>;
  if (ThreadX() == 0) args.scales[BlockX()] = scale;
  E4M3* const out = static_cast<E4M3*>(args.out) + BlockX() * args.out_stride;
  for (int i = ThreadX(); i < args.out_stride; i += kQuantizeThreads) {
    const bool holds = i < args.width && scale > 0.0f && scale < INFINITY;
    out[i] = holds ? FromFloat<E4M3>(LoadActivation(args.x, args.type, from + i) / scale) : E4M3{0};
  }
}

}  // namespace catserve::cuda

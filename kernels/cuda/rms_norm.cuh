// out[i] = weight * x[i] / sqrt(mean(x[i]^2) + eps), from the F32 residual to the type that matrix
// products read. A warp to a row. The CPU's twin: kernels/cpu/reference/rms_norm.cc.
#pragma once

#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/operations.h"

namespace catserve::cuda {

inline constexpr int kNormWarps = 4;
inline constexpr int kNormThreads = kNormWarps * kWarpThreads;

inline LaunchShape RmsNormShape(const RmsNormArgs& args) {
  return {.blocks_x = static_cast<uint32_t>(DivideUp(args.rows, kNormWarps)),
          .threads = kNormThreads};
}

template <typename T>
__global__ void __launch_bounds__(kNormThreads) RmsNorm(const __grid_constant__ RmsNormArgs args) {
  const int row = BlockX() * kNormWarps + WarpInBlock();
  if (row >= args.rows) return;
  const float* const x = args.x + row * args.x_stride;
  T* const out = static_cast<T*>(args.out) + row * args.out_stride;
  float squares = 0.0f;
  for (int i = Lane(); i < args.width; i += kWarpThreads) squares = fmaf(x[i], x[i], squares);
  const float mean = SumOverLanes(squares) / static_cast<float>(args.width);
  const float scale = 1.0f / sqrtf(mean + args.eps);
  for (int i = Lane(); i < args.width; i += kWarpThreads) {
    out[i] = ToActivation<T>(x[i] * scale * args.weight[i]);
  }
}

}  // namespace catserve::cuda

// out[i] = W x[i], or out[i] += W x[i], for at most eight rows: the weights are read once, and
// nothing else matters. A warp takes kOutputs outputs over all of `in`, 16 bytes of weights a lane
// and load; the rows' activations are read again by every warp, from the nearest cache.
// The CPU's twin: MatMul of kernels/cpu/reference/mat_mul.cc. More rows go to cuBLASLt.
#pragma once

#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/operations.h"

namespace catserve::cuda {

inline constexpr int kMatVecWarps = 4;
inline constexpr int kMatVecThreads = kMatVecWarps * kWarpThreads;

// Outputs of a warp: so many that activations do not cost more to read than weights.
template <int kRows>
inline constexpr int kMatVecOutputs = kRows >= 4 ? 4 : 2;

template <int kRows>
LaunchShape MatVecShape(const MatVecArgs& args) {
  const int64_t warps = DivideUp(args.out_features, kMatVecOutputs<kRows>);
  return {.blocks_x = static_cast<uint32_t>(DivideUp(warps, kMatVecWarps)),
          .threads = kMatVecThreads};
}

// 16 bytes of an output's weights from element k on; what lies beyond the end, or belongs to no
// output, is zero.
template <typename W>
__device__ inline void LoadWeights(float (&weights)[16 / sizeof(W)], const MatVecArgs& args,
                                   int output, int k) {
  constexpr int kVector = 16 / sizeof(W);
  const W* const from = static_cast<const W*>(args.w) + output * args.w_stride + k;
  W stored[kVector] = {};
  if (output < args.out_features && k + kVector <= args.in) {
    const Words<16> words = LoadVector<16>(from);
    memcpy(stored, &words, sizeof(stored));
  } else if (output < args.out_features) {
    for (int j = 0; j < kVector && k + j < args.in; ++j) stored[j] = from[j];
  }
  CATSERVE_UNROLL
  for (int j = 0; j < kVector; ++j) weights[j] = ToFloat(stored[j]);
}

// kRows: 1, 2, 4 or 8, at least args.rows.
template <typename X, typename W, int kRows>
__global__ void __launch_bounds__(kMatVecThreads) MatVec(const __grid_constant__ MatVecArgs args) {
  constexpr int kVector = 16 / sizeof(W);
  constexpr int kOutputs = kMatVecOutputs<kRows>;
  const int first = (BlockX() * kMatVecWarps + WarpInBlock()) * kOutputs;
  if (first >= args.out_features) return;
  float sum[kOutputs][kRows] = {};
  for (int k = Lane() * kVector; k < args.in; k += kWarpThreads * kVector) {
    float weights[kOutputs][kVector];
    CATSERVE_UNROLL
    for (int o = 0; o < kOutputs; ++o) LoadWeights<W>(weights[o], args, first + o, k);
    CATSERVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      if (r >= args.rows) break;
      const X* const x = static_cast<const X*>(args.x) + r * args.x_stride + k;
      CATSERVE_UNROLL
      for (int j = 0; j < kVector; ++j) {
        const float number = k + j < args.in ? ToFloat(x[j]) : 0.0f;
        CATSERVE_UNROLL
        for (int o = 0; o < kOutputs; ++o) sum[o][r] = fmaf(number, weights[o][j], sum[o][r]);
      }
    }
  }
  CATSERVE_UNROLL
  for (int o = 0; o < kOutputs; ++o) {
    CATSERVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      float product = SumOverLanes(sum[o][r]);
      if (Lane() != 0 || r >= args.rows || first + o >= args.out_features) continue;
      if (args.scales != nullptr) product *= args.scales[first + o];
      const int64_t at = r * args.out_stride + first + o;
      if (args.narrow) {
        static_cast<X*>(args.out)[at] = ToActivation<X>(product);
      } else {
        float& out = static_cast<float*>(args.out)[at];
        out = args.add ? out + product : product;
      }
    }
  }
}

}  // namespace catserve::cuda

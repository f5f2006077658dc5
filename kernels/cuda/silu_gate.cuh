// out[i] = silu(gate_up[i][0:f]) * gate_up[i][f:2f],  silu(x) = x / (1 + e^-x).
// The CPU's twin: kernels/cpu/reference/silu_gate.cc.
#pragma once

#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/operations.h"

namespace catserve::cuda {

inline constexpr int kSiluThreads = 256;

inline LaunchShape SiluGateShape(const SiluGateArgs& args) {
  return {.blocks_x = static_cast<uint32_t>(args.rows),
          .blocks_y = static_cast<uint32_t>(DivideUp(args.width, kSiluThreads)),
          .threads = kSiluThreads};
}

template <typename T>
__global__ void __launch_bounds__(kSiluThreads)
    SiluGate(const __grid_constant__ SiluGateArgs args) {
  const int i = BlockY() * kSiluThreads + ThreadX();
  if (i >= args.width) return;
  const T* const row = static_cast<const T*>(args.gate_up) + BlockX() * args.in_stride;
  const float gate = ToFloat(row[i]);
  const float up = ToFloat(row[args.width + i]);
  const float silu = gate / (1.0f + Exp2(gate * -1.44269504f));
  static_cast<T*>(args.out)[BlockX() * args.out_stride + i] = ToActivation<T>(silu * up);
}

}  // namespace catserve::cuda

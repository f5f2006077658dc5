// out[i] = silu(gate_up[i][0:f]) * gate_up[i][f:2f],  silu(x) = x / (1 + e^-x).
// The CPU's twin: kernels/cpu/reference/silu_gate.cc.
#pragma once

#include "kernels/cuda/device.h"

namespace catserve::cuda {

inline constexpr int kSiluThreads = 256;

struct SiluGateArgs {
  void* out;            // [rows, width], rows out_stride elements apart
  const void* gate_up;  // [rows, 2 width], rows in_stride elements apart
  int64_t out_stride;
  int64_t in_stride;
  int32_t rows;
  int32_t width;
};

inline LaunchShape SiluGateShape(const SiluGateArgs& args) {
  return {.blocks_x = static_cast<uint32_t>(DivideUp(args.width, kSiluThreads)),
          .blocks_y = static_cast<uint32_t>(args.rows),
          .threads = kSiluThreads};
}

template <typename T>
__global__ void __launch_bounds__(kSiluThreads)
    SiluGate(const __grid_constant__ SiluGateArgs args) {
  const int i = BlockX() * kSiluThreads + ThreadX();
  if (i >= args.width) return;
  const T* const row = static_cast<const T*>(args.gate_up) + BlockY() * args.in_stride;
  const float gate = ToFloat(row[i]);
  const float up = ToFloat(row[args.width + i]);
  const float silu = gate / (1.0f + Exp2(gate * -1.44269504f));
  static_cast<T*>(args.out)[BlockY() * args.out_stride + i] = FromFloat<T>(silu * up);
}

}  // namespace catserve::cuda

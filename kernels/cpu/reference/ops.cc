#include "kernels/cpu/ops.h"

#include "kernels/cpu/reference/functions.h"

namespace catserve::cpu {

const Ops& ReferenceOps() {
  static constexpr Ops kOps = {
      .description = "cpu reference",
      .widen = reference::Widen,
      .narrow = reference::Narrow,
      .largest_magnitude = reference::LargestMagnitude,
      .quantize = reference::Quantize,
      .hold_bf16 = reference::HoldBf16,
      .hold_int8 = reference::HoldInt8Groups,
      .hold_int16 = reference::HoldInt16Groups,
      .rms_norm = reference::RmsNorm,
      .mat_mul = reference::MatMul,
      .mat_mul_bf16 = reference::MatMulBf16,
      .mat_mul_int8 = reference::MatMulInt8,
      .mat_mul_int4 = reference::MatMulInt4,
      .silu_gate = reference::SiluGate,
      .rotate = reference::Rotate,
      .attend = reference::Attend,
      .clean_logits = reference::CleanLogits,
      .arg_max = reference::ArgMax,
      .sum_exp = reference::SumExp,
      .weigh = reference::Weigh,
  };
  return kOps;
}

}  // namespace catserve::cpu

// Compiled for any x86-64: decides whether the rest of this folder may run.
#include "kernels/cpu/ops.h"

#include "kernels/cpu/avx2/functions.h"

namespace catserve::cpu {

const Ops* Avx2Ops() {
  static constexpr Ops kOps = {
      .description = "cpu avx2",
      .widen = avx2::Widen,
      .narrow = avx2::Narrow,
      .largest_magnitude = avx2::LargestMagnitude,
      .quantize = avx2::Quantize,
      .hold_bf16 = avx2::HoldBf16,
      .hold_int8 = avx2::HoldInt8Groups,
      .hold_int16 = avx2::HoldInt16Groups,
      .rms_norm = avx2::RmsNorm,
      .mat_mul = avx2::MatMul,
      .mat_mul_bf16 = avx2::MatMulBf16,
      .mat_mul_int8 = avx2::MatMulInt8,
      .mat_mul_int4 = avx2::MatMulInt4,
      .silu_gate = avx2::SiluGate,
      .rotate = avx2::Rotate,
      .attend = avx2::Attend,
      .clean_logits = avx2::CleanLogits,
      .arg_max = avx2::ArgMax,
      .sum_exp = avx2::SumExp,
      .weigh = avx2::Weigh,
  };
  // F16C is older than AVX2; clang 14 has no name for it.
  const bool runs = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return runs ? &kOps : nullptr;
}

}  // namespace catserve::cpu

// The tables of AVX-512, each made from the next lesser one. For files compiled for any x86-64.
#pragma once

#include "kernels/cpu/avx512/functions.h"

namespace catserve::cpu::avx512 {

inline Ops WideOps(Ops avx2) {
  avx2.description = "cpu avx512";
  avx2.mat_mul = MatMul;
  avx2.mat_mul_bf16 = MatMulBf16;
  avx2.attend = Attend;
  return avx2;
}

inline Ops VnniOps(Ops wide) {
  wide.description = "cpu avx512 vnni";
  wide.hold_int16 = HoldInt16Groups;
  wide.mat_mul_int8 = MatMulInt8;
  wide.mat_mul_int4 = MatMulInt4;
  return wide;
}

inline Ops Bf16Ops(Ops vnni) {
  vnni.description = "cpu avx512 bf16";
  vnni.hold_bf16 = HoldBf16Pairs;
  vnni.mat_mul_bf16 = MatMulBf16Pairs;
  return vnni;
}

}  // namespace catserve::cpu::avx512

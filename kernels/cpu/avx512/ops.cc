// Compiled for any x86-64: decides whether the rest of this folder may run. The compiler's list of
// features holds one only if the system also saves the registers it takes (XCR0).
#include "kernels/cpu/ops.h"

#include "kernels/cpu/avx512/table.h"

namespace catserve::cpu {

const Ops* Avx512Ops() {
  const Ops* const avx2 = Avx2Ops();
  const bool runs = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 == nullptr || !runs) return nullptr;
  static const Ops kOps = avx512::WideOps(*avx2);
  return &kOps;
}

const Ops* Avx512VnniOps() {
  const Ops* const wide = Avx512Ops();
  if (wide == nullptr || !__builtin_cpu_supports("avx512vnni")) return nullptr;
  static const Ops kOps = avx512::VnniOps(*wide);
  return &kOps;
}

const Ops* Avx512Bf16Ops() {
  const Ops* const vnni = Avx512VnniOps();
  if (vnni == nullptr || !__builtin_cpu_supports("avx512bf16")) return nullptr;
  static const Ops kOps = avx512::Bf16Ops(*vnni);
  return &kOps;
}

}  // namespace catserve::cpu

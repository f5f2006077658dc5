#include "kernels/cpu/ops.h"

namespace catserve::cpu {

const Ops* Avx2Ops() { return nullptr; }
const Ops* Avx512Ops() { return nullptr; }
const Ops* Avx512VnniOps() { return nullptr; }
const Ops* Avx512Bf16Ops() { return nullptr; }

}  // namespace catserve::cpu

#include "kernels/cpu/ops.h"

namespace catserve::cpu {

const Ops* Avx2Ops() { return nullptr; }

}  // namespace catserve::cpu

#include "kernels/cpu/math.h"
#include "kernels/cpu/reference/functions.h"

namespace catserve::cpu::reference {

void SiluGate(float* out, const float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = Silu(gate[i]) * up[i];
}

}  // namespace catserve::cpu::reference

#include <cmath>

#include "kernels/cpu/reference/functions.h"

namespace catserve::cpu::reference {

void Rotate(float* head, const float* rotary, int64_t head_dim) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float u = head[i];
    const float v = head[i + half];
    const float cos = rotary[i];
    const float sin = rotary[i + half];
    head[i] = std::fma(u, cos, -(v * sin));
    head[i + half] = std::fma(v, cos, u * sin);
  }
}

}  // namespace catserve::cpu::reference

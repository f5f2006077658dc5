#include <cmath>

#include "kernels/cpu/math.h"
#include "kernels/cpu/reference/functions.h"

namespace catserve::cpu::reference {

void RmsNorm(float* out, const float* x, const float* weight, int64_t n, float eps) {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % kLanes] = std::fma(x[i], x[i], lanes[i % kLanes]);
  const float scale = 1.0f / std::sqrt(SumLanes(lanes) / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

}  // namespace catserve::cpu::reference

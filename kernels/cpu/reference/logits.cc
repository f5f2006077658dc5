#include <algorithm>
#include <limits>

#include "kernels/cpu/math.h"
#include "kernels/cpu/reference/functions.h"
#include "kernels/sampling.h"

namespace catserve::cpu::reference {

void CleanLogits(float* out, const float* logits, int64_t n) {
  constexpr float kMax = std::numeric_limits<float>::max();
  for (int64_t i = 0; i < n; ++i) {
    const float raised = logits[i] > -kMax ? logits[i] : -kMax;  // NaN compares false
    out[i] = std::min(raised, kMax);
  }
}

int64_t ArgMax(const float* z, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) {
    if (z[i] > z[best]) best = i;
  }
  return best;
}

double SumExp(const float* z, int64_t n, float max) {
  double lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % kLanes] += static_cast<double>(Exp(z[i] - max));
  return SumLanes(lanes);
}

void Weigh(uint64_t* weights, uint16_t* bins, const float* z, int64_t n, const WeighScale& scale) {
  for (int64_t i = 0; i < n; ++i) {
    const float y = (z[i] - scale.max) * scale.scale;
    weights[i] = SampleWeight(y);
    bins[i] = y > kSampleFloor ? static_cast<uint16_t>(y * kBinsPerUnit) : kNoBin;
  }
}

}  // namespace catserve::cpu::reference

#include <cmath>

#include "kernels/cpu/reference/functions.h"

namespace catserve::cpu::reference {
namespace {

float Dot(const Int8Weights& w, int64_t output, const Int16Group& x) {
  int32_t dot = 0;
  for (int64_t k = 0; k < kGroupInputs; ++k) {
    dot += w.quads[k / 4][output][k % 4] * x.numbers[WideIndex(k)];
  }
  return static_cast<float>(dot);
}

}  // namespace

void MatMulInt8(const Int8Tile& tile) {
  for (int64_t r = 0; r < tile.rows; ++r) {
    const Int16Group* x = tile.x + r * tile.groups;
    float* out = tile.out + r * tile.out_stride;
    for (int64_t o = 0; o < tile.out_features; ++o) {
      const Int8Weights* w = tile.panels + o / kPanel * tile.groups;
      float sum = 0;
      for (int64_t g = 0; g < tile.groups; ++g) {
        sum = std::fma(x[g].scale, Dot(w[g], o % kPanel, x[g]), sum);
      }
      sum *= tile.scales[o];
      out[o] = tile.add ? out[o] + sum : sum;
    }
  }
}

}  // namespace catserve::cpu::reference

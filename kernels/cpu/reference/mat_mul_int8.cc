#include <cmath>

#include "kernels/cpu/reference/functions.h"

namespace catserve::cpu::reference {
namespace {

float Dot(const Int8Weights& w, int64_t output, const Int16Group& x) {
  int32_t dot = x.start;
  for (int64_t i = 0; i < kGroupInputs / 2; ++i) {
    const uint8_t* pair = w.quads[i / 2][output] + i % 2 * 2;
    const int32_t odd = +static_cast<int8_t>(pair[1]);
    dot += (256 * odd + pair[0]) * x.even[i] + odd * x.odd[i];
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

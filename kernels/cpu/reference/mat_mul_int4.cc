#include <cmath>

#include "kernels/bfloat16.h"
#include "kernels/cpu/reference/functions.h"

namespace catserve::cpu::reference {
namespace {

float Dot(const Int4Group& w, int64_t output, const Int8Group& x) {
  int32_t dot = 0;
  for (int64_t k = 0; k < kGroupInputs; ++k) {
    const Nibble at = NibbleOf(output, k);
    dot += (w.nibbles[at.byte] >> at.shift & 0xf) * x.numbers[k];
  }
  return static_cast<float>(dot);
}

}  // namespace

void MatMulInt4(const Int4Tile& tile) {
  for (int64_t r = 0; r < tile.rows; ++r) {
    const Int8Group* x = tile.x + r * tile.groups;
    float* out = tile.out + r * tile.out_stride;
    for (int64_t o = 0; o < tile.out_features; ++o) {
      const Int4Group* w = tile.panels + o / kPanel * tile.groups;
      const int64_t output = o % kPanel;
      float sum = 0;
      for (int64_t g = 0; g < tile.groups; ++g) {
        const float scale = FloatFromBF16(w[g].scales[output]) * x[g].scale;
        sum = std::fma(scale, Dot(w[g], output, x[g]), sum);
        sum = std::fma(FloatFromBF16(w[g].minima[output]), x[g].sum, sum);
      }
      out[o] = tile.add ? out[o] + sum : sum;
    }
  }
}

}  // namespace catserve::cpu::reference

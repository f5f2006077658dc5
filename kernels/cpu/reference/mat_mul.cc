#include <cmath>

#include "kernels/cpu/math.h"
#include "kernels/cpu/reference/functions.h"

namespace catserve::cpu::reference {

void MatMul(const MatMulTile& tile) {
  for (int64_t r = 0; r < tile.rows; ++r) {
    const float* x = tile.x + r * tile.x_stride;
    float* out = tile.out + r * tile.out_stride;
    for (int64_t o = 0; o < tile.out_features; ++o) {
      const int64_t first = o / kPanel * kPanel * tile.in + PanelIndex(tile.dtype, o % kPanel);
      float sum = 0;
      for (int64_t k = 0; k < tile.in; ++k) {
        sum = std::fma(x[k], LoadFloat(tile.panels, tile.dtype, first + k * kPanel), sum);
      }
      out[o] = tile.add ? out[o] + sum : sum;
    }
  }
}

}  // namespace catserve::cpu::reference

#include <cmath>
#include <limits>

#include "kernels/cpu/math.h"
#include "kernels/cpu/reference/functions.h"

namespace catserve::cpu::reference {
namespace {

// Subnormal numbers as zeros.
float Flush(float x) {
  return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}

// fma(x, w, sum) of BF16 x and w. A processor judges what is subnormal by the sum as it would be
// rounded with any exponent: what comes up to the least normal number only by the coarser rounding
// of subnormal ones is a zero too. Sums so small are exact in double precision.
float MultiplyAdd(float x, float w, float sum) {
  constexpr float kLeast = std::numeric_limits<float>::min();
  const float rounded = std::fma(x, w, sum);
  if (!(std::abs(rounded) <= kLeast)) return rounded;
  const double exact = static_cast<double>(x) * w + static_cast<double>(sum);
  return std::abs(exact) >= kLeast - 0x1p-151 ? rounded : std::copysign(0.0f, rounded);
}

}  // namespace

void HoldBf16(float* to, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = FloatFromBF16(BF16FromFloat(Flush(x[i])));
  if (n % 2 != 0) to[n] = 0;
}

void MatMul(const MatMulTile& tile) {
  for (int64_t r = 0; r < tile.rows; ++r) {
    const float* x = tile.x + r * tile.x_stride;
    float* out = tile.out + r * tile.out_stride;
    for (int64_t o = 0; o < tile.out_features; ++o) {
      const float* w = static_cast<const float*>(tile.panels) + o / kPanel * kPanel * tile.in;
      float sum = 0;
      for (int64_t k = 0; k < tile.in; ++k) sum = std::fma(x[k], w[k * kPanel + o % kPanel], sum);
      out[o] = tile.add ? out[o] + sum : sum;
    }
  }
}

void MatMulBf16(const MatMulTile& tile) {
  const int64_t pairs = Pairs(tile.in);
  for (int64_t r = 0; r < tile.rows; ++r) {
    const float* x = tile.x + r * tile.x_stride;
    float* out = tile.out + r * tile.out_stride;
    for (int64_t o = 0; o < tile.out_features; ++o) {
      const uint32_t* w = static_cast<const uint32_t*>(tile.panels) + o / kPanel * kPanel * pairs;
      float sum = 0;
      for (int64_t i = 0; i < pairs; ++i) {
        const uint32_t both = w[i * kPanel + o % kPanel];
        const float former = FloatFromBF16(static_cast<uint16_t>(both >> 16));
        const float latter = FloatFromBF16(static_cast<uint16_t>(both));
        sum = MultiplyAdd(x[2 * i], former, sum);
        sum = MultiplyAdd(x[2 * i + 1], latter, sum);
      }
      out[o] = tile.add ? Flush(Flush(out[o]) + sum) : sum;
    }
  }
}

}  // namespace catserve::cpu::reference

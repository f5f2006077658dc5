// Products of BF16 pairs by one instruction that adds both products of a pair, each with a
// rounding, the upper halves' first; it takes and makes subnormal numbers as zeros.
#include <cstring>

#include "kernels/cpu/avx512/functions.h"
#include "kernels/cpu/avx512/mat_mul.h"
#include "kernels/cpu/subnormals.h"

namespace catserve::cpu::avx512 {
namespace {

struct Bf16Pairs {
  using Line = __m512bh;
  using Inputs = __m512bh;
  static constexpr int kFloats = 1;  // a pair is one word

  static Line LoadLine(const float* at) {
    return reinterpret_cast<__m512bh>(_mm512_loadu_si512(at));
  }
  static Inputs LoadInputs(const float* x) {
    int32_t pair;
    std::memcpy(&pair, x, sizeof(pair));
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
  }
  static __m512 Add(__m512 sum, Inputs x, Line w) { return _mm512_dpbf16_ps(sum, w, x); }
};

}  // namespace

// As words, a pair in each, in the first half of the row.
void HoldBf16Pairs(float* to, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += 32, to += 16) {
    const __m512 low = _mm512_maskz_loadu_ps(FirstLanes(n - i), x + i);
    const __m512 high = _mm512_maskz_loadu_ps(FirstLanes(n - i - 16), x + i + 16);
    const __m512i former_below = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
    const __m512i pairs = _mm512_rol_epi32(former_below, 16);
    _mm512_mask_storeu_ps(to, FirstLanes(Pairs(n - i)), _mm512_castsi512_ps(pairs));
  }
}

void MatMulBf16Pairs(const MatMulTile& tile) {
  const SubnormalsAsZeros flush;  // where the product is added
  Run<Bf16Pairs>(tile, Pairs(tile.in));
}

}  // namespace catserve::cpu::avx512

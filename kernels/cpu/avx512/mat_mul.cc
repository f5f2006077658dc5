#include "kernels/cpu/avx512/mat_mul.h"
#include "kernels/cpu/avx512/functions.h"
#include "kernels/cpu/subnormals.h"

namespace catserve::cpu::avx512 {
namespace {

struct F32Weights {
  using Line = __m512;
  using Inputs = __m512;
  static constexpr int kFloats = 1;

  static Line LoadLine(const float* at) { return Load(at); }
  static Inputs LoadInputs(const float* x) { return _mm512_set1_ps(*x); }
  static __m512 Add(__m512 sum, Inputs x, Line w) { return _mm512_fmadd_ps(x, w, sum); }
};

// Of two inputs, as F32: so are the inputs held.
struct Bf16Weights {
  struct Line {
    __m512 former, latter;
  };
  struct Inputs {
    __m512 former, latter;
  };
  static constexpr int kFloats = 2;

  static Line LoadLine(const float* at) {
    const __m512i both = _mm512_castps_si512(Load(at));
    return {_mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(-65536))),
            _mm512_castsi512_ps(_mm512_slli_epi32(both, 16))};
  }
  static Inputs LoadInputs(const float* x) { return {_mm512_set1_ps(x[0]), _mm512_set1_ps(x[1])}; }
  static __m512 Add(__m512 sum, const Inputs& x, const Line& w) {
    return _mm512_fmadd_ps(x.latter, w.latter, _mm512_fmadd_ps(x.former, w.former, sum));
  }
};

}  // namespace

void MatMul(const MatMulTile& tile) { Run<F32Weights>(tile, tile.in); }

void MatMulBf16(const MatMulTile& tile) {
  const SubnormalsAsZeros flush;
  Run<Bf16Weights>(tile, Pairs(tile.in));
}

}  // namespace catserve::cpu::avx512

#include <cfloat>

#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx2/simd.h"

namespace catserve::cpu::avx2 {
namespace {

const float kInfinity = __builtin_inff();

__m256 Clean(__m256 x) {  // max returns its second operand for a NaN
  return _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(-FLT_MAX)), _mm256_set1_ps(FLT_MAX));
}

// Adds eight weights' worth of e^(z - max) to lanes 0-3 and 4-7.
void AddExp(__m256d (&lanes)[2], __m256 z, float max) {
  const __m256 p = Exp(_mm256_sub_ps(z, _mm256_set1_ps(max)));
  lanes[0] = _mm256_add_pd(lanes[0], _mm256_cvtps_pd(_mm256_castps256_ps128(p)));
  lanes[1] = _mm256_add_pd(lanes[1], _mm256_cvtps_pd(_mm256_extractf128_ps(p, 1)));
}

// m << by, or m >> -by if negative: counts outside 0 to 63 shift everything out.
__m256i Shift(__m128i m, __m128i by) {
  const __m256i wide = _mm256_cvtepu32_epi64(m);
  const __m256i left = _mm256_cvtepi32_epi64(by);
  const __m256i right = _mm256_sub_epi64(_mm256_setzero_si256(), left);
  return _mm256_or_si256(_mm256_sllv_epi64(wide, left), _mm256_srlv_epi64(wide, right));
}

// SampleWeight and the bin of eight y.
void Weigh8(uint64_t* weights, uint16_t* bins, __m256 y) {
  const __m256 magic = _mm256_set1_ps(12582912.0f);
  const __m256 shifted = _mm256_add_ps(y, magic);
  const __m256 f = _mm256_sub_ps(y, _mm256_sub_ps(shifted, magic));
  const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(0x4b400000));
  __m256 p = _mm256_set1_ps(1.535336188319500e-4f);
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.339887440266574e-3f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(9.618437357674640e-3f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(5.550332471162809e-2f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(2.402264791363012e-1f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(6.931472028550421e-1f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
  const __m256i above = _mm256_castps_si256(_mm256_cmp_ps(y, _mm256_set1_ps(-40.0f), _CMP_GT_OQ));
  const __m256i m =
      _mm256_and_si256(above, _mm256_cvttps_epi32(_mm256_mul_ps(p, _mm256_set1_ps(16777216.0f))));
  const __m256i by = _mm256_add_epi32(n, _mm256_set1_epi32(16));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights),
                      Shift(_mm256_castsi256_si128(m), _mm256_castsi256_si128(by)));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(weights + 4),
                      Shift(_mm256_extracti128_si256(m, 1), _mm256_extracti128_si256(by, 1)));
  const __m256i bin = _mm256_cvttps_epi32(_mm256_mul_ps(y, _mm256_set1_ps(kBinsPerUnit)));
  const __m256i kept = _mm256_blendv_epi8(_mm256_set1_epi32(kNoBin), bin, above);
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(bins),
      _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1)));
}

}  // namespace

void CleanLogits(float* out, const float* logits, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, Clean(Load(logits + i)));
  if (i < n) StoreFirst(out + i, Clean(LoadFirst(logits + i, n - i)), n - i);
}

int64_t ArgMax(const float* z, int64_t n) {
  const __m256 lowest = _mm256_set1_ps(-kInfinity);
  __m256 max = lowest;
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) max = _mm256_max_ps(Load(z + i), max);
  if (i < n) {
    const __m256 lanes = _mm256_castsi256_ps(FirstLanes(n - i));
    max = _mm256_max_ps(_mm256_blendv_ps(lowest, LoadFirst(z + i, n - i), lanes), max);
  }
  const float best = MaxLane(max);
  for (i = 0; i + 8 <= n; i += 8) {
    const __m256 equal = _mm256_cmp_ps(Load(z + i), _mm256_set1_ps(best), _CMP_EQ_OQ);
    const int mask = _mm256_movemask_ps(equal);
    if (mask != 0) return i + __builtin_ctz(static_cast<unsigned>(mask));
  }
  while (i + 1 < n && z[i] != best) ++i;
  return i;
}

double SumExp(const float* z, int64_t n, float max) {
  __m256d lanes[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) AddExp(lanes, Load(z + i), max);
  if (i < n) {
    const __m256 filler = _mm256_set1_ps(-kInfinity);  // e^-inf = 0
    const __m256 first = _mm256_castsi256_ps(FirstLanes(n - i));
    AddExp(lanes, _mm256_blendv_ps(filler, LoadFirst(z + i, n - i), first), max);
  }
  const __m256d pairs = _mm256_hadd_pd(lanes[0], lanes[1]);  // 0+1, 4+5, 2+3, 6+7
  const __m128d quads = _mm_add_pd(_mm256_castpd256_pd128(pairs), _mm256_extractf128_pd(pairs, 1));
  return _mm_cvtsd_f64(_mm_add_sd(quads, _mm_unpackhi_pd(quads, quads)));
}

void Weigh(uint64_t* weights, uint16_t* bins, const float* z, int64_t n, const WeighScale& scale) {
  const __m256 max = _mm256_set1_ps(scale.max);
  const __m256 factor = _mm256_set1_ps(scale.scale);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    Weigh8(weights + i, bins + i, _mm256_mul_ps(_mm256_sub_ps(Load(z + i), max), factor));
  }
  if (i < n) {
    uint64_t last_weights[8];
    uint16_t last_bins[8];
    const __m256 last = LoadFirst(z + i, n - i);
    Weigh8(last_weights, last_bins, _mm256_mul_ps(_mm256_sub_ps(last, max), factor));
    std::memcpy(weights + i, last_weights, static_cast<size_t>(n - i) * sizeof(uint64_t));
    std::memcpy(bins + i, last_bins, static_cast<size_t>(n - i) * sizeof(uint16_t));
  }
}

}  // namespace catserve::cpu::avx2

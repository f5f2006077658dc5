#include "kernels/cpu/avx2/functions.h"
#include "kernels/cpu/avx2/hold_group.h"
#include "kernels/cpu/avx2/simd.h"

namespace catserve::cpu::avx2 {
namespace {

void Store(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }

}  // namespace

void HoldInt8Groups(Int8Group* to, const float* x, int64_t groups) {
  for (int64_t g = 0; g < groups; ++g) {
    const Held held = HoldGroup(x + g * kGroupInputs);
    Store(to[g].numbers, held.numbers);
    to[g].scale = held.scale;
    to[g].sum = held.scale * static_cast<float>(SumBytes(held.numbers));
  }
}

void HoldInt16Groups(Int16Group* row, int64_t first, const float* x, int64_t groups) {
  Int16Group* const to = row + first;
  for (int64_t g = 0; g < groups; ++g) {
    const Held held = HoldGroup(x + g * kGroupInputs);
    const __m256i shifted = _mm256_slli_epi16(held.numbers, 8);  // 256 even
    const __m256i even = _mm256_srai_epi16(shifted, 8);
    Store(to[g].even, even);
    Store(to[g].odd, _mm256_sub_epi16(_mm256_srai_epi16(held.numbers, 8), shifted));
    to[g].scale = held.scale;
    to[g].start = -128 * SumLanes(_mm256_madd_epi16(even, _mm256_set1_epi16(1)));
  }
}

}  // namespace catserve::cpu::avx2

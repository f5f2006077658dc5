#include "kernels/cpu/hold_int8.h"
#include "kernels/cpu/reference/functions.h"

namespace catserve::cpu::reference {
namespace {

float HoldGroup(int8_t* numbers, const float* x) {
  return FloatFromBF16(HoldInt8(ReferenceOps(), numbers, x, kGroupInputs));
}

}  // namespace

void HoldInt8Groups(Int8Group* to, const float* x, int64_t groups) {
  for (int64_t g = 0; g < groups; ++g) {
    to[g].scale = HoldGroup(to[g].numbers, x + g * kGroupInputs);
    int32_t sum = 0;
    for (const int8_t number : to[g].numbers) sum += number;
    to[g].sum = to[g].scale * static_cast<float>(sum);
  }
}

void HoldInt16Groups(Int16Group* row, int64_t first, const float* x, int64_t groups) {
  Int16Group* const to = row + first;
  for (int64_t g = 0; g < groups; ++g) {
    int8_t numbers[kGroupInputs];
    to[g].scale = HoldGroup(numbers, x + g * kGroupInputs);
    to[g].start = 0;
    for (int64_t i = 0; i < kGroupInputs / 2; ++i) {
      const int even = +numbers[2 * i];
      to[g].even[i] = static_cast<int16_t>(even);
      to[g].odd[i] = static_cast<int16_t>(numbers[2 * i + 1] - 256 * even);
      to[g].start -= 128 * even;
    }
  }
}

}  // namespace catserve::cpu::reference

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/bfloat16.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/reference/functions.h"

namespace catserve::cpu::reference {

void Widen(float* out, const void* in, DType dtype, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = LoadFloat(in, dtype, i);
}

void Narrow(void* out, const float* in, DType dtype, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (dtype == DType::kF32) {
      static_cast<float*>(out)[i] = in[i];
    } else {
      static_cast<uint16_t*>(out)[i] =
          dtype == DType::kBF16 ? BF16FromFloat(in[i]) : F16FromFloat(in[i]);
    }
  }
}

// As whole numbers, so that a NaN is larger than everything.
float LargestMagnitude(const float* in, int64_t n) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(in[i]) & 0x7fffffffu);
  }
  return std::bit_cast<float>(largest);
}

void Quantize(int8_t* out, const float* in, float scale, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<int8_t>(std::nearbyint(in[i] / scale));
}

}  // namespace catserve::cpu::reference

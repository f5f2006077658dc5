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

}  // namespace catserve::cpu::reference

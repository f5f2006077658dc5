// Activations that are F32, BF16 or F16 as the host says: for what a kernel reads and writes once,
// where an instance for each type would be the same code thrice.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/tensor.h"

namespace catserve::cuda {

__device__ inline float LoadActivation(const void* data, DType type, int64_t at) {
  if (type == DType::kF32) return static_cast<const float*>(data)[at];
  const uint16_t bits = static_cast<const uint16_t*>(data)[at];
  return type == DType::kBF16 ? ToFloat(BF16{bits}) : ToFloat(F16{bits});
}

__device__ inline void StoreActivation(void* data, DType type, int64_t at, float x) {
  if (type == DType::kF32) {
    static_cast<float*>(data)[at] = x;
  } else {
    static_cast<uint16_t*>(data)[at] =
        type == DType::kBF16 ? FromFloat<BF16>(x).bits : FromFloat<F16>(x).bits;
  }
}

// The largest magnitude that an activation becomes: an infinity would make a whole row none.
template <typename T>
inline constexpr float kActivationMax = INFINITY;
template <>
inline constexpr float kActivationMax<F16> = 65504.0f;

template <typename T>
__device__ inline T ToActivation(float x) {
  if (fabsf(x) > kActivationMax<T>) x = copysignf(kActivationMax<T>, x);  // a NaN stays one
  return FromFloat<T>(x);
}

}  // namespace catserve::cuda

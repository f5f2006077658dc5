// The narrow types that kernels read and write, as their bits: device.h says what they mean. Plain,
// so that a shared array of them needs no construction.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace catserve::cuda {

struct BF16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
struct E4M3 {
  uint8_t bits;
};
using I8 = int8_t;

// What the host calls an activation's type.
template <typename T>
inline constexpr DType kTypeOf = DType::kF32;
template <>
inline constexpr DType kTypeOf<BF16> = DType::kBF16;
template <>
inline constexpr DType kTypeOf<F16> = DType::kF16;

// Entries of these types are held with a scale: number = scale * what is stored.
template <typename T>
inline constexpr bool kHasScale = sizeof(T) == 1;
// The largest number of theirs that an entry's largest magnitude becomes.
template <typename T>
inline constexpr float kScaledMax = 1.0f;
template <>
inline constexpr float kScaledMax<E4M3> = 448.0f;
template <>
inline constexpr float kScaledMax<I8> = 127.0f;

}  // namespace catserve::cuda

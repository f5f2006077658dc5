// How far a kernel may be from its CPU twin, in one table, and how that is measured. Inputs of the
// twin are the kernel's own, decoded: so a row of the table is the error of computing, and that of
// storing KV memory with 8 bits stands apart.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <type_traits>

#include "kernels/cuda/number.h"
#include "kernels/tensor.h"

namespace catserve::cuda::testing {

// |got - want| / |want| of a row (a head, for attention), in the Euclidean norm, by the type that
// is read and written. Rounding a number alone costs up to 2^-8 in BF16 and
// 2^-11 in F16; in pieces queries and weights are rounded as well.
struct Tolerance {
  double f32;
  double bf16;
  double f16;

  template <typename T>
  double Of() const {
    return sizeof(T) == 4 ? f32 : std::is_same_v<T, BF16> ? bf16 : f16;
  }
  double Of(DType type) const {
    return type == DType::kF32 ? f32 : type == DType::kBF16 ? bf16 : f16;
  }
};
// clang-format off
//                                            F32    BF16   F16
inline constexpr Tolerance kAttentionRows = {1e-6, 4e-3, 5e-4};
inline constexpr Tolerance kPieceRows =     {6e-3, 6e-3, 6e-3};  // operands are BF16
inline constexpr Tolerance kPlainRows =     {1e-6, 4e-3, 5e-4};
// Sums over a thousand products, in F32 however narrow the operands.
inline constexpr Tolerance kProducts =      {2e-6, 2e-6, 2e-6};
// The same of E4M3 by E4M3 on a card, whose tensor cores are said to add with some 14 bits.
inline constexpr Tolerance kProductsOfE4M3 = {2e-3, 2e-3, 2e-3};
// clang-format on
// Absolute, of a log-probability.
inline constexpr double kLogprobError = 2e-5;
// What storing keys and values with 8 bits and a scale for each entry and head costs the output of
// attention over normally distributed entries.
inline constexpr double kStoredE4M3 = 6e-2;
inline constexpr double kStoredI8 = 2e-2;

inline double RelativeError(std::span<const float> got, std::span<const float> want) {
  double difference = 0;
  double size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    size += double{want[i]} * want[i];
  }
  // NaN, the poison of what was never written, is larger than any tolerance.
  const double error = std::sqrt(difference) / (size > 0 ? std::sqrt(size) : 1.0);
  return std::isnan(error) ? INFINITY : error;
}

}  // namespace catserve::cuda::testing

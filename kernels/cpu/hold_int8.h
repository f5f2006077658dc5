// Floats held as whole numbers of 8 bits: entries of KV memory, and inputs of products with weights
// that are whole numbers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/backend.h"
#include "kernels/bfloat16.h"
#include "kernels/cpu/ops.h"
#include "kernels/kv_page.h"

namespace catserve::cpu {

// Writes `from` as numbers from -127 to 127 and returns the bits of their BF16 scale, by the rule
// of KvLayer: zeros where the scale is 0 or not finite.
inline uint16_t HoldInt8(const Ops& ops, int8_t* to, const float* from, int64_t n) {
  const uint16_t bits = KvScaleBits(ops.largest_magnitude(from, n), kKvInt8Most);
  const float scale = FloatFromBF16(bits);
  if (scale > 0 && std::isfinite(scale)) {
    ops.quantize(to, from, scale, n);
  } else {
    std::memset(to, 0, static_cast<size_t>(n));
  }
  return bits;
}

// Holds the `in` numbers of one row in groups: of products with 4-bit weights, and with 8-bit ones.
void HoldInputs(const Ops& ops, Int8Group* to, const float* x, int64_t in);
void HoldInputs(const Ops& ops, Int16Group* to, const float* x, int64_t in);

}  // namespace catserve::cpu

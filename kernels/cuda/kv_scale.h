// How an entry of KV memory is held with 8 bits: each head's keys, and its values, as numbers of at
// most kScaledMax<KV> times a BF16 scale of their own. Dividing by the scale as stored makes its
// own rounding harmless; rounded up, it keeps the largest number in range.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cuda/host_device.h"
#include "kernels/cuda/number.h"

namespace catserve::cuda {

// The scale for numbers of magnitude at most `largest`; 0 if they are all 0, NaN for NaN.
template <typename KV>
CATSERVE_HOST_DEVICE inline BF16 EntryScale(float largest) {
  const float scale = largest / kScaledMax<KV>;
  uint32_t bits;
  memcpy(&bits, &scale, sizeof(bits));
  return {static_cast<uint16_t>((bits + 0xffffu) >> 16)};
}

}  // namespace catserve::cuda

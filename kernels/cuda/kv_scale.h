// The scale of an entry's head in KV memory of 8 bits: numbers of at most kScaledMax<KV> times it.
#pragma once

#include "kernels/cuda/number.h"
#include "kernels/host_device.h"
#include "kernels/kv_page.h"

namespace catserve::cuda {

// The scale for numbers of magnitude at most `largest`: the rule of KvScaleBits.
template <typename KV>
CATSERVE_HOST_DEVICE inline BF16 EntryScale(float largest) {
  return {KvScaleBits(largest, kScaledMax<KV>)};
}

}  // namespace catserve::cuda

// Where an entry of KV memory lies. Every kernel and every size goes through EntryIndex: 64-bit
// from the first product on, since a pool has more elements than 2^31.
#pragma once

#include <cstdint>

#include "kernels/cuda/host_device.h"
#include "kernels/cuda/number.h"

namespace catserve::cuda {

inline constexpr int kPageEntries = 16;  // what kernels/backend.h calls kKvPageEntries

// The KV memory of one layer, in the layout of backend.h's KvLayer:
// [pages, kv_heads, 2 (k, v), kPageEntries, head_dim]. A plain value; does not own.
struct KvSlab {
  void* data;
  BF16* scales;  // [pages, kv_heads, 2, kPageEntries] for types with a scale; else null
  int32_t kv_heads;
  int32_t head_dim;
};

enum KvPart : int { kKey = 0, kValue = 1 };

// The entries that lie before this one: times head_dim its first element, and as it is its scale.
CATSERVE_HOST_DEVICE inline int64_t EntryIndex(const KvSlab& kv, int64_t page, int kv_head,
                                               KvPart part, int entry) {
  return ((page * kv.kv_heads + kv_head) * 2 + part) * kPageEntries + entry;
}

}  // namespace catserve::cuda

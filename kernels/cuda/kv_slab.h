// A layer's KV memory as the kernels take it, in the layout of kv_page.h. Every kernel and every
// size goes through EntryIndex.
#pragma once

#include <cstdint>

#include "kernels/cuda/number.h"
#include "kernels/host_device.h"
#include "kernels/kv_page.h"

namespace catserve::cuda {

inline constexpr int kPageEntries = static_cast<int>(kKvPageEntries);

// A plain value; does not own.
struct KvSlab {
  void* data;
  BF16* scales;  // [pages, kv_heads, 2, kPageEntries] for types with a scale; else null
  int32_t kv_heads;
  int32_t head_dim;
  bool operator==(const KvSlab&) const = default;
};

// The entries that lie before this one: times head_dim its first element, and as it is its scale.
CATSERVE_HOST_DEVICE inline int64_t EntryIndex(const KvSlab& kv, int64_t page, int kv_head,
                                               KvPart part, int entry) {
  return KvEntryIndex(kv.kv_heads, {page, kv_head, part, entry});
}

}  // namespace catserve::cuda

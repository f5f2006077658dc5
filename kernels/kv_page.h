// How KV memory is laid out and held with 8 bits, in every engine. One layer is
// [pages, kv_heads, 2 (k, v), kKvPageEntries, head_dim]; with 8 bits each head's keys of an entry,
// and its values, have a BF16 scale of their own: [pages, kv_heads, 2, kKvPageEntries] beside them.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/host_device.h"

namespace catserve {

// Entries in one page of KV memory: what engine/geometry.h calls kPageEntries.
inline constexpr int64_t kKvPageEntries = 16;

enum KvPart : int { kKey = 0, kValue = 1 };

// An entry of a page, for one key/value head: `page` counts from the layer's first.
struct KvPlace {
  int64_t page;
  int64_t kv_head;
  KvPart part;
  int64_t entry;  // in the page
};

// The entries that lie before this one: times head_dim its first element, and as it is its scale.
// 64-bit from the first product on, since a pool has more elements than 2^31.
CATSERVE_HOST_DEVICE inline int64_t KvEntryIndex(int64_t kv_heads, const KvPlace& at) {
  return ((at.page * kv_heads + at.kv_head) * 2 + at.part) * kKvPageEntries + at.entry;
}

// The scale, as the bits of a BF16, with which numbers of magnitude at most `largest` are held as
// numbers of magnitude at most `most`: 0 if they are all 0, NaN for NaN. Rounded up, it keeps the
// largest in range; dividing by the scale as stored makes its own rounding harmless.
CATSERVE_HOST_DEVICE inline uint16_t KvScaleBits(float largest, float most) {
  const float scale = largest / most;
  if (scale != scale) return 0x7fc0;
  uint32_t bits;
  memcpy(&bits, &scale, sizeof(bits));
  return static_cast<uint16_t>((bits + 0xffffu) >> 16);
}

}  // namespace catserve

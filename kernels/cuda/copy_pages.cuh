// Copies pages within KV memory, in all layers at once: a sequence that goes on in a shared page
// gets its own. 16 bytes a thread; the order of pairs does not matter, no page is in two of them.
#pragma once

#include "kernels/cuda/device.h"

namespace catserve::cuda {

inline constexpr int kCopyThreads = 256;

struct PagePair {
  int32_t from;
  int32_t to;
};

struct CopyPagesArgs {
  uint8_t* slab;        // of the first layer; 16-byte aligned
  int64_t layer_bytes;  // from one layer's slab to the next
  int64_t page_bytes;   // a multiple of 16
  const PagePair* pairs;
};

inline LaunchShape CopyPagesShape(int pairs, int layers) {
  return {.blocks_x = static_cast<uint32_t>(pairs),
          .blocks_y = static_cast<uint32_t>(layers),
          .threads = kCopyThreads};
}

__global__ void __launch_bounds__(kCopyThreads)
    CopyPages(const __grid_constant__ CopyPagesArgs args) {
  uint8_t* const layer = args.slab + BlockY() * args.layer_bytes;
  const PagePair pair = args.pairs[BlockX()];
  const uint8_t* const from = layer + pair.from * args.page_bytes;
  uint8_t* const to = layer + pair.to * args.page_bytes;
  for (int64_t at = ThreadX() * 16; at < args.page_bytes; at += kCopyThreads * 16) {
    StoreVector<16>(to + at, LoadVector<16>(from + at));
  }
}

}  // namespace catserve::cuda

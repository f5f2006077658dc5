// Speed of the seam's operations at the shapes of the published checkpoint, on a backend that has a
// device, beside that device's copy bandwidth and matrix rate.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/device_clock.h"
#include "engine/model_description.h"

namespace catserve {

// The published checkpoint and how it is used; a test takes less of everything.
struct DeviceKernelSizes {
  StackDescription decoder{
      .dim = 2048, .heads = 32, .kv_heads = 32, .head_dim = 64, .feed_forward = 5632};
  StackDescription compressor{.dim = 1024, .heads = 16, .kv_heads = 16, .head_dim = 64};
  StackDescription twin{.dim = 1024, .heads = 16, .kv_heads = 16, .head_dim = 64};
  int32_t vocab_size = 50257;
  int32_t padded_vocab_size = 50432;  // rows of the output layer, columns of logits
  int32_t tokens = 4096;              // of each sequence
  int32_t batch = 64;                 // of paged attention
  int32_t layers = 12;                // each with KV memory of its own
  std::vector<int32_t> chunk_sizes = {4, 8, 16, 32};
  std::vector<int64_t> product_rows = {1, 8, 32, 128, 320};
  int64_t step_rows = 340;    // of a decode step of 320 sequences at chunk size 16
  int64_t many_rows = 16384;  // whose operations come from memory, not from a cache
  // Memory that is read in turn, so that no cache holds it: four times the L2 of any card with one
  // of 128 MB or less.
  int64_t rotated_bytes = int64_t{512} << 20;
  ProbeSizes probe;
};

// Prints a table for each case, a row as it is measured, then its name=value lines. Operations of
// so many rows as steps replay are timed as replays of recorded parts: the row says which share of
// the timed parts was, or that they are launched one by one. `cases`: empty, or one of ceilings,
// attention, products, sampling, rows. Errors: INVALID_ARGUMENT for another; RESOURCE_EXHAUSTED
// with the numbers.
absl::Status RunDeviceKernels(Backend& backend, const DeviceKernelSizes& sizes,
                              const std::string& cases);

}  // namespace catserve

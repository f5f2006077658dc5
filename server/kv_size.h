// How many pages of KV memory the server takes at start.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/geometry.h"

namespace catserve {

// Pages for `kv_memory_bytes`; for 0, a quarter of `available_bytes`, at most twice what `slots`
// sequences of the full context can use: once for them, once for what the prefix cache keeps.
// Errors: INVALID_ARGUMENT if that does not hold one full-context sequence at the thriftiest chunk
// size, naming the bytes that would.
absl::StatusOr<int64_t> KvPages(const ModelGeometry& model, int64_t kv_memory_bytes, int32_t slots,
                                int64_t available_bytes);

// How many full-context sequences `pages` hold at once, for each chunk size: "12 at chunk size 4,
// 30 at 8"; for a dense model just the number.
std::string FullContextSequences(const ModelGeometry& model, int64_t pages);

// Memory that this process could still take without anything being swapped out: what the kernel
// estimates for the machine, or what its control group has left if that is less. `root`: where
// /proc and /sys are.
int64_t AvailableBytes(const std::string& root = "");

}  // namespace catserve

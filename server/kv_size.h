// How many pages of KV memory the server takes at start.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/geometry.h"

namespace catserve {

// What KV memory may take where the operator names no bytes.
struct KvRoom {
  int64_t bytes = 0;
  std::string source;  // for errors: "a quarter of ..."
};
// A quarter of the machine's memory that is available: the rest is everybody's.
KvRoom RoomOnHost(int64_t available_bytes);
// What is free of a device's own memory, but for the share of it that shall stay free, and at least
// 256 MiB, which its driver takes as it needs them.
KvRoom RoomOnDevice(int64_t free_bytes, int64_t total_bytes, double memory_fraction);

// Pages for `kv_memory_bytes`; for 0, for the room there is, at most twice what `slots` sequences
// of the full context can use: once for them, once for what the prefix cache keeps. Errors:
// INVALID_ARGUMENT if that does not hold one full-context sequence at the thriftiest chunk size,
// naming the bytes that would.
absl::StatusOr<int64_t> KvPages(const ModelGeometry& model, int64_t kv_memory_bytes, int32_t slots,
                                const KvRoom& room);

// How many full-context sequences `pages` hold at once, for each chunk size: "12 at chunk size 4,
// 30 at 8"; for a dense model just the number.
std::string FullContextSequences(const ModelGeometry& model, int64_t pages);

// Memory that this process could still take without anything being swapped out: what the kernel
// estimates for the machine, or what its control group has left if that is less. `root`: where
// /proc and /sys are.
int64_t AvailableBytes(const std::string& root = "");

}  // namespace catserve

// How many pages of KV memory the server takes at start.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/geometry.h"

namespace catserve {

// Pages for `kv_memory_bytes`; for 0, what `slots` sequences of the full context can use at the
// smallest chunk size, at most a quarter of `machine_bytes`. Errors: INVALID_ARGUMENT if that does
// not hold one full-context sequence at the largest chunk size, naming the bytes that would.
absl::StatusOr<int64_t> KvPages(const ModelGeometry& model, int64_t kv_memory_bytes, int32_t slots,
                                int64_t machine_bytes);

// Full-context sequences that `pages` hold at once, for each chunk size: "4: 12, 8: 30"; for a
// dense model just the number.
std::string FullContextSequences(const ModelGeometry& model, int64_t pages);

// The memory this process may use: the machine's, or its control group's limit if that is less.
int64_t MachineBytes();

}  // namespace catserve

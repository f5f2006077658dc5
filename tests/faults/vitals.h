// What a process holds, from outside.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "tests/server/calls.h"

namespace catserve::testing {

int32_t OpenDescriptors(pid_t pid);
int64_t ResidentBytes(pid_t pid);

// Waits until the server is idle, every page free and no more than `most` descriptors are open; the
// test's own time limit bounds it. Returns the descriptors.
int32_t AwaitDescriptors(Stubs& stubs, pid_t pid, int32_t most);

}  // namespace catserve::testing

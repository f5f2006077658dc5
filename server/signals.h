// SIGTERM and SIGINT as an event.
#pragma once

#include <functional>

namespace catserve {

// Blocks SIGTERM and SIGINT in the calling thread and those it starts later (so call it first), and
// waits for them on a thread of its own. The first one calls `first`, on that thread; the second
// ends the process at once with code 128 + signal. Ends with the process.
void WatchSignals(std::function<void(int signal)> first);

}  // namespace catserve

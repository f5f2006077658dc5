// Signals as events.
#pragma once

#include <functional>

namespace catserve {

// Called on a thread of their own, where a handler may do anything.
struct SignalEvents {
  std::function<void(int signal)> first;  // the first SIGTERM or SIGINT
  std::function<void()> hangup;           // each SIGHUP; null: it ends the process, as usual
};

// Blocks these signals in the calling thread and those it starts later (so call it first), and
// waits for them. The second SIGTERM or SIGINT ends the process at once with code 128 + signal.
// Ends with the process.
void WatchSignals(SignalEvents events);

}  // namespace catserve

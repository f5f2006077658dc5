#include "server/signals.h"

#include <unistd.h>

#include <csignal>
#include <thread>
#include <utility>

namespace catserve {

void WatchSignals(SignalEvents events) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  if (events.hangup != nullptr) sigaddset(&signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals, events = std::move(events)] {
    for (bool ending = false;;) {
      int signal = 0;
      sigwait(&signals, &signal);
      if (signal == SIGHUP) {
        events.hangup();
        continue;
      }
      if (ending) _exit(128 + signal);
      ending = true;
      events.first(signal);
    }
  }).detach();
}

}  // namespace catserve

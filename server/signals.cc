#include "server/signals.h"

#include <unistd.h>

#include <csignal>
#include <thread>
#include <utility>

namespace catserve {

void WatchSignals(std::function<void(int signal)> first) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals, first = std::move(first)] {
    int signal = 0;
    sigwait(&signals, &signal);
    first(signal);
    sigwait(&signals, &signal);
    _exit(128 + signal);
  }).detach();
}

}  // namespace catserve

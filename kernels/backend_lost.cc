#include "kernels/backend_lost.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

namespace catserve {
namespace {

std::function<void(const std::string&)>& Listener() {
  static std::function<void(const std::string&)> listener;
  return listener;
}

}  // namespace

void OnBackendLost(std::function<void(const std::string&)> tell) { Listener() = std::move(tell); }

void BackendLost(const char* during, const char* why) {
  const std::string message = std::string("the GPU failed while ") + during + ": " + why +
                              "; see the driver's log (dmesg | grep -i nvrm), then restart";
  if (const auto tell = std::exchange(Listener(), nullptr)) {
    tell(message);
  } else {
    std::fprintf(stderr, "catserve: %s\n", message.c_str());
  }
  std::fflush(nullptr);
  std::_Exit(kExitBackendLost);  // destructors would call the driver again
}

}  // namespace catserve

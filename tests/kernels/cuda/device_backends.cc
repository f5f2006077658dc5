// The suites that every backend must pass get that of a GPU.
#include "kernels/backend_factory.h"
#include "tests/engine/model/tested_backends.h"
#include "tests/kernels/device.h"

namespace catserve::testing {

std::unique_ptr<Backend> Make(const std::string& name, int threads) {
  return MakeBackend(name, threads).value();
}

std::vector<std::string> BackendNames() { return {"cuda"}; }
bool Starts(const std::string& /*name*/) { return true; }  // device_main.cc has seen to it
int Repeats(int full, int /*least*/) { return full; }

TestedBackends Tested() {
  return {.fast = "cuda", .slow = {}, .same_bits = false, .four_bits = false};
}

}  // namespace catserve::testing

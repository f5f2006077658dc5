// The backends of every build; the GPU's: cuda/device_backends.cc.
#include "kernels/backend_factory.h"
#include "tests/kernels/device.h"

namespace catserve::testing {

std::unique_ptr<Backend> Make(const std::string& name, int threads) {
  auto backend = MakeBackend(name, threads);
  EXPECT_TRUE(backend.ok()) << backend.status();
  return std::move(backend).value();
}

std::vector<std::string> BackendNames() {
  return {"cpu-reference", "cpu-avx2", "cpu-avx512", "cpu-avx512-vnni", "cpu-avx512-bf16"};
}

bool Starts(const std::string& name) { return MakeBackend(name, 1).ok(); }

int Repeats(int full, int /*least*/) { return full; }

}  // namespace catserve::testing

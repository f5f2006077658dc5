// The AVX-512 form as emulate.h makes it, and the other forms to compare it with. The form with
// VNNI is made of everything that there is in 512 bits.
#define avx512 avx512_emulated
#include "kernels/cpu/avx512/table.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/forms.h"
#include "tests/kernels/device.h"

namespace catserve::testing {
namespace {

const cpu::Ops& EmulatedOps() {
  static const cpu::Ops kOps =
      cpu::avx512_emulated::VnniOps(cpu::avx512_emulated::WideOps(*cpu::Avx2Ops()));
  return kOps;
}

}  // namespace

std::unique_ptr<Backend> Make(const std::string& name, int threads) {
  if (name == "cpu-reference") return cpu::MakeCpuBackend(cpu::ReferenceOps(), threads);
  EXPECT_EQ(name, "cpu-avx512-vnni-emulated");
  return cpu::MakeCpuBackend(EmulatedOps(), threads);
}

std::vector<std::string> BackendNames() { return {"cpu-avx512-vnni-emulated"}; }
bool Starts(const std::string& /*name*/) { return cpu::Avx2Ops() != nullptr; }
int Repeats(int full, int /*least*/) { return full; }

}  // namespace catserve::testing

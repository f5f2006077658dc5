// The AVX-512 forms as emulate.h makes them, and the other forms to compare them with. That with
// VNNI has all that is computed in 512 bits but what takes VDPBF16PS.
#define avx512 avx512_emulated
#include "kernels/cpu/avx512/table.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/forms.h"
#include "tests/kernels/device.h"

namespace catserve::testing {
namespace {

const cpu::Ops& VnniOps() {
  static const cpu::Ops kOps =
      cpu::avx512_emulated::VnniOps(cpu::avx512_emulated::WideOps(*cpu::Avx2Ops()));
  return kOps;
}

const cpu::Ops& Bf16Ops() {
  static const cpu::Ops kOps = cpu::avx512_emulated::Bf16Ops(VnniOps());
  return kOps;
}

}  // namespace

std::unique_ptr<Backend> Make(const std::string& name, int threads) {
  if (name == "cpu-reference") return cpu::MakeCpuBackend(cpu::ReferenceOps(), threads);
  const bool bf16 = name == "cpu-avx512-bf16-emulated";
  EXPECT_TRUE(bf16 || name == "cpu-avx512-vnni-emulated") << name;
  return cpu::MakeCpuBackend(bf16 ? Bf16Ops() : VnniOps(), threads);
}

std::vector<std::string> BackendNames() {
  return {"cpu-avx512-vnni-emulated", "cpu-avx512-bf16-emulated"};
}
bool Starts(const std::string& /*name*/) { return cpu::Avx2Ops() != nullptr; }
int Repeats(int full, int /*least*/) { return full; }

}  // namespace catserve::testing

// The CUDA backend over an emulated device, and the CPU's to compare it with. Its memories are so
// small that rows are cut and arenas wrap. Nothing here has run on a GPU.
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/forms.h"
#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/device.h"

namespace catserve::testing {
namespace {

constexpr cuda::CudaMemory kMemory{
    .scratch_bytes = 256 << 10, .upload_bytes = 256 << 10, .download_bytes = 16 << 10};

}  // namespace

std::unique_ptr<Backend> Make(const std::string& name, int threads) {
  if (name == "cpu-reference") return cpu::MakeCpuBackend(cpu::ReferenceOps(), threads);
  if (name == "cpu") return cpu::MakeCpuBackend(cpu::FastestOps(), threads);
  EXPECT_EQ(name, "cuda-emulated");
  return cuda::MakeCudaBackend(kMemory).value();
}

std::vector<std::string> BackendNames() { return {"cuda-emulated"}; }
bool Starts(const std::string& /*name*/) { return true; }
int Repeats(int /*full*/, int least) { return least; }

}  // namespace catserve::testing

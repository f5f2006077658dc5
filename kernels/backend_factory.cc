#include "kernels/backend_factory.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_backend.h"
#ifdef CATSERVE_CUDA
#include "kernels/cuda/cuda_backend.h"
#endif

namespace catserve {
namespace {

constexpr int kThreadsMax = 1024;

#ifdef CATSERVE_CUDA
constexpr char kBackends[] = "cpu, cpu-reference, cuda";
#else
constexpr char kBackends[] = "cpu, cpu-reference";
#endif

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(std::string_view name, int threads) {
  if (threads < 0 || threads > kThreadsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads is ", threads, "; allowed: 0 (one per core) to ", kThreadsMax));
  }
  if (name == "cpu") return cpu::MakeCpuBackend(cpu::Form::kFastest, threads);
  if (name == "cpu-reference") return cpu::MakeCpuBackend(cpu::Form::kReference, threads);
#ifdef CATSERVE_CUDA
  if (name == "cuda") return cuda::MakeCudaBackend();
#endif
  return absl::InvalidArgumentError(
      absl::StrCat("there is no backend \"", std::string(name), "\"; this build has ", kBackends));
}

}  // namespace catserve

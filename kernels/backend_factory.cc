#include "kernels/backend_factory.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/forms.h"
#ifdef CATSERVE_CUDA
#include "kernels/cuda/cuda_backend.h"
#endif

namespace catserve {
namespace {

constexpr int kThreadsMax = 1024;

// The backends of this build, for people to read.
std::string Names() {
  std::string names = "cpu";
  for (const cpu::Form& form : cpu::Forms()) absl::StrAppend(&names, ", ", form.name);
#ifdef CATSERVE_CUDA
  absl::StrAppend(&names, ", cuda");
#endif
  return names;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(std::string_view name, int threads) {
  if (threads < 0 || threads > kThreadsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads is ", threads, "; allowed: 0 (one per core) to ", kThreadsMax));
  }
  if (name == "cpu") return cpu::MakeCpuBackend(cpu::FastestOps(), threads);
  for (const cpu::Form& form : cpu::Forms()) {
    if (name != form.name) continue;
    if (form.ops != nullptr) return cpu::MakeCpuBackend(*form.ops, threads);
    return absl::UnavailableError(
        absl::StrCat("this machine or build lacks the instructions of \"", form.name,
                     "\"; --backend=cpu takes the fastest form there is, with the same results"));
  }
#ifdef CATSERVE_CUDA
  if (name == "cuda") return cuda::MakeCudaBackend();
#endif
  return absl::InvalidArgumentError(
      absl::StrCat("there is no backend \"", std::string(name), "\"; this build has ", Names(),
                   name == "cuda" ? ". `make cuda` builds a server with it" : ""));
}

}  // namespace catserve

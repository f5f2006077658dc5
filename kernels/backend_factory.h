// The only place that knows which backends this build has.
#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace catserve {

// name: "cpu" (the fastest form this machine can run), a form by its own name (cpu-reference,
// cpu-avx2, cpu-avx512, cpu-avx512-vnni) or "cuda". threads: CPU worker threads, 0 for one per
// core. Errors: INVALID_ARGUMENT naming the backends there are; UNAVAILABLE if this machine cannot
// run it.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(std::string_view name, int threads);

}  // namespace catserve

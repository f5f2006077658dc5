// The backend of plain host memory. Operations are done when they return. Results depend neither on
// the number of threads nor on the form: each equals the reference bit for bit.
#pragma once

#include <memory>

#include "kernels/backend.h"
#include "kernels/cpu/ops.h"

namespace catserve::cpu {

// ops: of a form (forms.h); it outlives the backend. threads: the calling one included; 0 for one
// per core. The backend serves one thread at a time.
std::unique_ptr<Backend> MakeCpuBackend(const Ops& ops, int threads);

}  // namespace catserve::cpu

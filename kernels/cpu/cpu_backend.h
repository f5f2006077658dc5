// The backend of plain host memory. Operations are done when they return. Results depend neither on
// the number of threads nor on the form: the fastest equals the reference bit for bit.
#pragma once

#include <memory>

#include "kernels/backend.h"

namespace catserve::cpu {

enum class Form {
  kReference,  // the scalar definition
  kFastest,    // AVX2 where this machine has it
};

// threads: the calling one included; 0 for one per core. The backend serves one thread at a time.
std::unique_ptr<Backend> MakeCpuBackend(Form form, int threads);

}  // namespace catserve::cpu

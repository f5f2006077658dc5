// The forms of the CPU backend by name: the one place that ranks them.
#pragma once

#include <span>

#include "kernels/cpu/ops.h"

namespace catserve::cpu {

struct Form {
  const char* name = nullptr;
  const Ops* ops = nullptr;  // null where this machine or build cannot run it
};

// The fastest first; the last is the reference, which runs everywhere.
std::span<const Form> Forms();

// The fastest form that this machine can run.
const Ops& FastestOps();

}  // namespace catserve::cpu

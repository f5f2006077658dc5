#include "kernels/cpu/hold_int8.h"

#include <algorithm>

namespace catserve::cpu {
namespace {

// Calls hold with the whole groups of a row, then with its last one filled up with zeros.
template <typename Group>
void Hold(void (*hold)(Group*, const float*, int64_t), Group* to, const float* x, int64_t in) {
  const int64_t whole = in / kGroupInputs;
  hold(to, x, whole);
  if (whole * kGroupInputs == in) return;
  float last[kGroupInputs] = {};
  std::copy(x + whole * kGroupInputs, x + in, last);
  hold(to + whole, last, 1);
}

}  // namespace

void HoldInputs(const Ops& ops, Int8Group* to, const float* x, int64_t in) {
  Hold(ops.hold_int8, to, x, in);
}

void HoldInputs(const Ops& ops, Int16Group* to, const float* x, int64_t in) {
  Hold(ops.hold_int16, to, x, in);
}

}  // namespace catserve::cpu

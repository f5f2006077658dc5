#include "kernels/cpu/hold_int8.h"

#include <algorithm>

namespace catserve::cpu {
namespace {

// Calls hold(first, x, groups) with the whole groups of a row, then with its last one filled up
// with zeros.
template <typename HoldGroups>
void Hold(const HoldGroups& hold, const float* x, int64_t in) {
  const int64_t whole = in / kGroupInputs;
  hold(0, x, whole);
  if (whole * kGroupInputs == in) return;
  float last[kGroupInputs] = {};
  std::copy(x + whole * kGroupInputs, x + in, last);
  hold(whole, last, 1);
}

}  // namespace

void HoldInputs(const Ops& ops, Int8Group* to, const float* x, int64_t in) {
  Hold([&](int64_t first, const float* from,
           int64_t groups) { ops.hold_int8(to + first, from, groups); },
       x, in);
}

void HoldInputs(const Ops& ops, Int16Group* to, const float* x, int64_t in) {
  Hold([&](int64_t first, const float* from,
           int64_t groups) { ops.hold_int16(to, first, from, groups); },
       x, in);
}

}  // namespace catserve::cpu

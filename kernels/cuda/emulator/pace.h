// How far the emulated device is when nobody waits for it. A program that is right gives the same
// results at every pace; each of these shows other faults.
#pragma once

#include <cstdint>

namespace catserve::cuda::emulator {

enum class Pace : uint8_t {
  kLazy,   // nowhere: who reads too early, or changes what is still to be read, sees it
  kEager,  // done with all it was given: who has results of two steps in one place sees it
};

// Of every device made from now on; kLazy at first.
void SetPace(Pace pace);

}  // namespace catserve::cuda::emulator

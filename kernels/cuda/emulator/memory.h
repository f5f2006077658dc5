// How much memory the emulated device has, and what it can do.
#pragma once

#include <cstdint>

namespace catserve::cuda::emulator {

// Of every device made from now on; 4 GiB at first.
void SetDeviceBytes(int64_t bytes);
// The same of its compute capability; 90 at first.
void SetComputeCapability(int capability);

}  // namespace catserve::cuda::emulator

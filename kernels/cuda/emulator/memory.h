// How much memory the emulated device has.
#pragma once

#include <cstdint>

namespace catserve::cuda::emulator {

// Of every device made from now on; 4 GiB at first.
void SetDeviceBytes(int64_t bytes);

}  // namespace catserve::cuda::emulator

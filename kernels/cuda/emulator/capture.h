// Whether emulated devices record graphs.
#pragma once

namespace catserve::cuda::emulator {

struct Capture {
  static inline bool refused = false;  // by every device, from now on
};

}  // namespace catserve::cuda::emulator

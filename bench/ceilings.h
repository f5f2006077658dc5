// What this machine can do at best, measured in the process that also takes the benchmark, since
// shared machines change from minute to minute.
#pragma once

namespace catserve {

struct Ceilings {
  double read_bytes_per_second = 0;  // all threads reading memory much larger than the caches
  double flops_per_second = 0;       // all threads, fused multiply-adds in registers, F32
};

// Takes about a second; the best of a few tries.
Ceilings MeasureCeilings(int threads);

}  // namespace catserve

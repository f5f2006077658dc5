// What this machine can do at best, whatever form of the engine runs, measured in the process that
// also takes the benchmark, since shared machines change from minute to minute.
#pragma once

#include <string_view>

#include "kernels/backend.h"

namespace catserve {

struct Ceilings {
  double read_bytes_per_second = 0;  // all threads reading memory much larger than the caches
  double flops_per_second = 0;       // all threads, fused multiply-adds in registers, F32
  double bf16_ops_per_second = 0;    // the same of BF16 pairs; 0 where products take F32
  // All threads, multiply-adds of whole numbers in registers, 8 bits by 8 and by 4, with the
  // multiplications that the engine takes; 0 where products take floats.
  double int8_ops_per_second = 0;
  double int4_ops_per_second = 0;
  // A large product with weights and rows of E4M3, on a device that has it; else 0.
  double e4m3_ops_per_second = 0;

  // What bounds products with weights of a type (ModelDescription::weight_dtype): never less than
  // the rate of F32.
  double OpsPerSecond(std::string_view weight_dtype) const;
};

// ModelDescription::weight_dtype of a matrix of type `host` that is packed as `format`.
const char* WeightDtype(DType host, WeightFormat format);

// The better of two measurements, number by number.
Ceilings Best(const Ceilings& a, const Ceilings& b);

// Takes about a second; the best of a few tries.
Ceilings MeasureCeilings(int threads);

}  // namespace catserve

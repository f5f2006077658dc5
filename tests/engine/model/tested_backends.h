// On which backends the golden suites run: what they are linked with decides (cpu_backends.cc, or
// tests/kernels/cuda/device_backends.cc).
#pragma once

#include <string>
#include <vector>

namespace catserve::testing {

struct TestedBackends {
  std::string fast;               // runs every case
  std::vector<std::string> slow;  // run what shows most
  bool same_bits;                 // a row's do not depend on how it was computed, nor beside what
  bool four_bits;                 // has weights of 4 bits
};

TestedBackends Tested();

}  // namespace catserve::testing

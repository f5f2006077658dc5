// The main of tests that run on a GPU. Where none answers nothing is run, and nothing passes: the
// status is 3, which ctest and tools/gpu_check.py report as skipped.
#include <iostream>

#include "gtest/gtest.h"
#include "kernels/backend_factory.h"

int main(int argc, char** argv) {
  constexpr int kSkipped = 3;
  testing::InitGoogleTest(&argc, argv);
  if (const absl::Status status = catserve::MakeBackend("cuda", 1).status(); !status.ok()) {
    std::cerr << "SKIPPED: " << status.message() << "\n";
    return absl::IsUnavailable(status) ? kSkipped : 1;
  }
  return RUN_ALL_TESTS();
}

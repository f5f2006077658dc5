// For files compiled for AVX2 or AVX-512 only, by the rules of avx2/simd.h.
#pragma once

#include <xmmintrin.h>

namespace catserve::cpu {
namespace {

// While it lives, this thread reads subnormal numbers as zeros and makes zeros of them. Call what
// computes, and do not let it be inlined: the compiler does not know that arithmetic depends on it.
class SubnormalsAsZeros {
 public:
  SubnormalsAsZeros() : before_(_mm_getcsr()) { _mm_setcsr(before_ | kFlush | kAsZeros); }
  ~SubnormalsAsZeros() { _mm_setcsr(before_); }
  SubnormalsAsZeros(const SubnormalsAsZeros&) = delete;
  SubnormalsAsZeros& operator=(const SubnormalsAsZeros&) = delete;

 private:
  static constexpr unsigned kFlush = 0x8000;
  static constexpr unsigned kAsZeros = 0x40;
  unsigned before_;
};

}  // namespace
}  // namespace catserve::cpu

#include "kernels/sampling.h"

namespace catserve {
namespace {

// The finaliser of splitmix64 (Steele, Lea and Flood, 2014): a bijection that mixes every bit.
constexpr uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

}  // namespace

uint64_t RandomWord(uint64_t seed, uint64_t choice, uint64_t position) {
  return Mix(Mix(Mix(seed) ^ choice) ^ position);
}

}  // namespace catserve

// The order of the includes matters. clang-format does not know that:
// clang-format off
#include "tests/kernels/avx512/emulate.h"
#include "kernels/cpu/avx512/mat_mul_bf16.cc"

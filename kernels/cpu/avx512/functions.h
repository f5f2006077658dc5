// What is computed in 512 bits; ops.h says what each computes. The rest of a table is AVX2's: where
// the defined order leaves nothing to gain (eight lanes to a sum), or the time spent is small.
#pragma once

#include "kernels/cpu/ops.h"

namespace catserve::cpu::avx512 {

void Attend(const AttentionTile& tile);
void MatMul(const MatMulTile& tile);
void MatMulInt4(const Int4Tile& tile);  // takes VNNI

}  // namespace catserve::cpu::avx512

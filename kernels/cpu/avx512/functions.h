// What is computed in 512 bits; ops.h says what each computes. The rest of a table is AVX2's: where
// the defined order leaves nothing to gain (eight lanes to a sum), or the time spent is small.
#pragma once

#include "kernels/cpu/ops.h"

namespace catserve::cpu::avx512 {

void Attend(const AttentionTile& tile);
void MatMul(const MatMulTile& tile);
void MatMulBf16(const MatMulTile& tile);

// With VNNI.
void HoldInt16Groups(Int16Group* row, int64_t first, const float* x, int64_t groups);
void MatMulInt8(const Int8Tile& tile);
void MatMulInt4(const Int4Tile& tile);

// With BF16.
void HoldBf16Pairs(float* to, const float* x, int64_t n);
void MatMulBf16Pairs(const MatMulTile& tile);

}  // namespace catserve::cpu::avx512

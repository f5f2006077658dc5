// The AVX2 form of every operation; ops.h says what each computes.
#pragma once

#include <cstdint>

#include "kernels/cpu/ops.h"

namespace catserve::cpu::avx2 {

void Widen(float* out, const void* in, DType dtype, int64_t n);
void Narrow(void* out, const float* in, DType dtype, int64_t n);
float LargestMagnitude(const float* in, int64_t n);
void Quantize(int8_t* out, const float* in, float scale, int64_t n);
void HoldBf16(float* to, const float* x, int64_t n);
void HoldInt8Groups(Int8Group* to, const float* x, int64_t groups);
void HoldInt16Groups(Int16Group* row, int64_t first, const float* x, int64_t groups);
void RmsNorm(float* out, const float* x, const float* weight, int64_t n, float eps);
void MatMul(const MatMulTile& tile);
void MatMulBf16(const MatMulTile& tile);
void MatMulInt8(const Int8Tile& tile);
void MatMulInt4(const Int4Tile& tile);
void SiluGate(float* out, const float* gate, const float* up, int64_t n);
void Rotate(float* head, const float* rotary, int64_t head_dim);
void Attend(const AttentionTile& tile);
void CleanLogits(float* out, const float* logits, int64_t n);
int64_t ArgMax(const float* z, int64_t n);
double SumExp(const float* z, int64_t n, float max);
void Weigh(uint64_t* weights, uint16_t* bins, const float* z, int64_t n, const WeighScale& scale);

}  // namespace catserve::cpu::avx2

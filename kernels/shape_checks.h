// What every backend asks of its operands: a mismatch is a bug, and aborts with a message that
// names the operand.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace catserve {

inline constexpr int64_t kHeadDimMax = 256;

// F32, of two dimensions.
void CheckMatrix(const TensorView& view, const char* name);
void CheckColumns(const TensorView& view, int64_t columns, const char* name);
// The same of any activation type.
void CheckActivations(const TensorView& view, int64_t columns, const char* name);

// [out, in] of a float type, in host memory.
void CheckWeights(const TensorView& host);

void CheckSpec(const HeadSpec& spec);
void CheckKv(const Backend& backend, const KvLayer& kv, const HeadSpec& spec);
void CheckLogits(const TensorView& logits, int32_t vocab_size, size_t rows);

}  // namespace catserve

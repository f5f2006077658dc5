// The backend's operations on logits: ids and a few floats come back, nothing else.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.h"
#include "kernels/cuda/device_context.h"
#include "kernels/cuda/operations.h"
#include "kernels/sampling.h"

namespace catserve::cuda {

// A spec as the kernel reads it, its lists of bias and forbidden ids left out.
SampleRow RowOf(const SampleSpec& spec);

// As Backend::Sample and Backend::ScoreTokens; the draws are filled in when the context has been
// synchronised.
void SampleRows(DeviceContext& context, std::span<TokenDraw> out, const TensorView& logits,
                int32_t vocab_size, std::span<const SampleSpec> specs);
void ScoreRows(DeviceContext& context, std::span<TokenDraw> out, const TensorView& logits,
               int32_t vocab_size, std::span<const int32_t> targets,
               std::span<const int32_t> top_n);

}  // namespace catserve::cuda

// The least time that a step could take on a machine: the sum over its operations of the larger of
// bytes over bandwidth and operations over rate (DESIGN, "floor of a step").
#pragma once

#include <cstdint>

#include "bench/ceilings.h"
#include "engine/model_description.h"

namespace catserve {

// Seconds per decode step of `sequences` sequences of `tokens` tokens each, averaged over the
// chunk: per token (C + 1) / C decoder rows and 1 / C closings, each compressing C + 2 rows.
// chunk_size: 0 for a dense model.
double DecodeStepFloor(const ModelDescription& model, const Ceilings& machine, int32_t chunk_size,
                       double sequences, double tokens);

// Seconds to prefill a prompt of `tokens` tokens.
double PrefillFloor(const ModelDescription& model, const Ceilings& machine, int32_t chunk_size,
                    double tokens);

}  // namespace catserve

// What each position of the dial costs, as arithmetic on the model's sizes.
#pragma once

#include <cstdint>

#include "server/served_model.h"

namespace catserve {

// Bytes of KV memory that 1,000 more tokens of a long sequence come to hold, at rest.
double KvBytesPer1000Tokens(const ModelGeometry& model, int32_t chunk_size);

// Floating-point operations (two for each multiply-add) to decode one token when half the context
// is filled, on average over a chunk's tokens.
double DecodeOperations(const ModelDescription& model, int32_t chunk_size);

// The same for a dense model: the card's twin, or where it names none one of the decoder's width.
// The card does not tell the twin's feed-forward width and heads: taken in the decoder's
// proportions.
double DenseDecodeOperations(const ServedModel& model);

}  // namespace catserve

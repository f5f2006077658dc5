// How many replicas a load needs, and what each of them must hold. Pure arithmetic.
#pragma once

#include <cstdint>

#include "engine/geometry.h"

namespace catserve {

// What callers will ask.
struct OfferedLoad {
  double requests_per_second = 0;
  int32_t prompt_tokens = 0;
  int32_t generated_tokens = 0;
  double utilisation = 0;  // (0, 1]: how busy a replica may be; the rest is room for bursts
};

// What one replica did with such requests while `streams` of them always ran.
struct MeasuredReplica {
  int32_t streams = 0;
  double requests_per_second = 0;
  double request_seconds = 0;  // mean, from the first row to the last token
};

struct Sizing {
  int64_t replicas = 0;
  double concurrent = 0;       // requests running in one replica, on average (Little's law)
  int64_t sequence_bytes = 0;  // KV memory of one sequence at its longest
  int64_t memory_bytes = 0;    // of a replica: all the streams that were measured, at their longest
};

// Chunk size 0: a dense model. REQUIRES: positive rates and utilisation.
Sizing SizeFor(const OfferedLoad& load, const MeasuredReplica& measured, int32_t chunk_size,
               const ModelGeometry& model);

}  // namespace catserve

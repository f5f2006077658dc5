#include "server/catctl/sizing.h"

#include <cmath>

namespace catserve {

Sizing SizeFor(const OfferedLoad& load, const MeasuredReplica& measured, int32_t chunk_size,
               const ModelGeometry& model) {
  Sizing sizing;
  const double usable = measured.requests_per_second * load.utilisation;
  sizing.replicas = static_cast<int64_t>(std::ceil(load.requests_per_second / usable));
  sizing.concurrent =
      load.requests_per_second / static_cast<double>(sizing.replicas) * measured.request_seconds;
  const int64_t tokens = int64_t{load.prompt_tokens} + load.generated_tokens;
  sizing.sequence_bytes = PageBytes(model, PeakEntries(model, chunk_size, tokens));
  sizing.memory_bytes = sizing.sequence_bytes * measured.streams;
  return sizing;
}

}  // namespace catserve

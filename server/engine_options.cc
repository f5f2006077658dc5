#include "server/engine_options.h"

#include <algorithm>
#include <cmath>

#include "server/quality.h"

namespace catserve {
namespace {

constexpr int32_t kStepTokensLeast = 256;
constexpr int32_t kStepRowsLeast = 1024;  // capacity is cheap beside weights and KV memory

}  // namespace

int32_t StepTokensDefault(const ModelDescription& model, int32_t slots) {
  const int32_t chunk = model.geometry.compresses() ? model.geometry.chunk_sizes.back() : 1;
  const double prefill = chunk + 2 + chunk * CompressorTokenRows(model);
  return std::max(kStepTokensLeast, 2 * slots + static_cast<int32_t>(std::ceil(2 * prefill)));
}

EngineOptions MakeEngineOptions(const ServerOptions& options, const ServedModel& model) {
  EngineOptions engine;
  engine.slots = options.slots;
  engine.queue_requests_max = options.queue_requests_max;
  engine.step_tokens_max = options.step_tokens_max > 0
                               ? options.step_tokens_max
                               : StepTokensDefault(model.description, options.slots);
  engine.step_rows_max = std::max(kStepRowsLeast, engine.step_tokens_max);
  engine.compressor_token_rows = CompressorTokenRows(model.description);
  engine.quality = QualityColumns(model.card, model.description.geometry);
  return engine;
}

}  // namespace catserve

// Decode and prefill speed of the engine (scheduler, memory, model; no gRPC) at each chunk size,
// beside the floor of the machine, on any backend.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/ceilings.h"
#include "engine/model/model.h"
#include "kernels/backend.h"

namespace catserve {

// Prompts of the sequences that are decoded together.
enum class Lengths {
  kStaggered,  // each one token shorter than the last, modulo the chunk: closings take turns
  kLockStep,   // all equal: every chunk closes in the same step
  kSpread,     // evenly from next to nothing to twice prompt_tokens, which is their mean
};

struct EngineRuns {
  std::string name;       // of the figures
  std::string directory;  // of the model
  WeightType weight_type = WeightType::kAsStored;
  DType kv_dtype = DType::kBF16;
  std::vector<int> batches;          // sequences decoded together; none: prefill alone
  std::vector<int32_t> chunk_sizes;  // of those offered, these; empty: all
  int32_t prompt_tokens = 256;
  int32_t generated_tokens = 48;
  Lengths lengths = Lengths::kStaggered;
  int32_t step_tokens = 0;  // work of a step (EngineOptions::step_tokens_max); 0: the engine's own
  bool prompts_beside = true;  // ExecutorOptions::prompts_beside
};

// Prints a table row for each run as it ends, then name=value lines. Errors: INVALID_ARGUMENT for a
// type of KV memory that the backend does not hold; as Model::Load and Engine::Submit.
absl::Status RunEngines(Backend& backend, const Ceilings& ceilings, const EngineRuns& runs);

}  // namespace catserve

// What the engine is started with, from the operator's flags and the model.
#pragma once

#include <cstdint>

#include "engine/engine.h"
#include "engine/model_description.h"
#include "server/flags.h"
#include "server/served_model.h"

namespace catserve {

// Work of a step, in decoder rows, where the operator names none: every slot's sequence may run two
// rows, and beside them two prefills compress and decode a chunk of the largest size; at least 256,
// so that few slots do not make prefills long.
int32_t StepTokensDefault(const ModelDescription& model, int32_t slots);

// All but kv_pages, which are known once the executor has taken its memory: step_rows_max is what
// it has to hold.
EngineOptions MakeEngineOptions(const ServerOptions& options, const ServedModel& model);

}  // namespace catserve

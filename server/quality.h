// What the model card's measured values mean for budgets: which chunk sizes a bound on quality
// leaves, and how they rank.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "catserve/v1/generation.pb.h"
#include "engine/geometry.h"
#include "engine/schedule/request.h"
#include "server/served_model.h"

namespace catserve {

// What each chunk size loses against the best one of a task, as a fraction of the best value; only
// those that were measured and that the model offers.
QualityColumn LossOf(const QualityTask& task, const ModelGeometry& model);

// The engine's columns: that of requests that name no task (the card's first; empty unless it has
// measured every chunk size offered, since sizes without a value cannot be ranked), then one for
// each task of the card.
std::vector<QualityColumn> QualityColumns(const ModelCard& card, const ModelGeometry& model);

// Sets in `budget` the column that ranks and the chunk sizes that are left; nothing if the message
// names neither a bound nor a task. Errors: INVALID_ARGUMENT naming the field and what is allowed,
// FAILED_PRECONDITION naming the command that measures, for a model without values.
absl::Status ReadQuality(const v1::AutoBudget& message, const ServedModel& model, Budget& budget);

}  // namespace catserve

// The dial as a table that a person can read.
#pragma once

#include <string>

#include "catserve/v1/model.pb.h"

namespace catserve {

// A value of a task, with as many digits as any other.
std::string QualityText(double value);

// A row for each chunk size and each dense model to compare with; KV memory, decode cost, and a
// column for each task of the model's card, by name, the best values marked. What the marks and the
// columns mean, and which task is the default, stands below. Whole lines.
std::string DialTable(const v1::GetModelResponse& model);

}  // namespace catserve

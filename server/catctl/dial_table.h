// The dial as a table that a person can read.
#pragma once

#include <string>

#include "catserve/v1/model.pb.h"

namespace catserve {

// A row for each chunk size and each dense model to compare with; KV memory, decode cost, and a
// column for each task of the model's card, the best values marked. What the marks and the columns
// mean stands below. Whole lines.
std::string DialTable(const v1::GetModelResponse& model);

}  // namespace catserve

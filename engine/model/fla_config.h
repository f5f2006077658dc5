// The config.json of the port in the flash-linear-attention library (docs/checkpoints.md): flat,
// with "model_type": "cat" too.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/model/config.h"
#include "nlohmann/json.hpp"

namespace catserve {

// True if a `cat` document is written in this form: it has `hidden_size` and no `decoder`.
bool IsFlaConfig(const nlohmann::json& document);

// Errors: as ParseConfig.
absl::StatusOr<ModelConfig> ParseFlaConfig(const nlohmann::json& document, const std::string& file);

}  // namespace catserve

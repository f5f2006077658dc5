// A loaded model: its configuration and weights. Immutable, shared by executors of one backend.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/config.h"
#include "engine/model/weights.h"
#include "engine/model_description.h"
#include "kernels/backend.h"

namespace catserve {

struct ModelOptions {
  WeightType weight_type = WeightType::kAsStored;
};

class Model {
 public:
  // Reads `directory`/config.json and its safetensors. REQUIRES: backend outlives the model.
  // Errors: one line that names file and field or tensor.
  static absl::StatusOr<std::unique_ptr<Model>> Load(const std::string& directory, Backend& backend,
                                                     const ModelOptions& options = {});

  const ModelConfig& config() const { return config_; }
  const ModelWeights& weights() const { return weights_; }
  ModelDescription Describe(DType kv_dtype) const;

  // What an operator should know of the files though they serve, one line each.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  Model() = default;

  ModelConfig config_;
  ModelWeights weights_;
  int64_t parameters_ = 0;
  std::vector<std::string> warnings_;
};

}  // namespace catserve

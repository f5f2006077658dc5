#include "engine/model/model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/model/checkpoint.h"
#include "engine/model/json.h"

namespace catserve {
namespace {

StackDescription Describe(const StackConfig& stack) {
  return {.dim = stack.dim,
          .layers = stack.layers,
          .heads = stack.heads,
          .kv_heads = stack.kv_heads,
          .head_dim = stack.head_dim,
          .feed_forward = stack.feed_forward};
}

// One line for all tensors that the model does not use.
std::string UnusedWarning(const std::string& directory, const std::vector<std::string>& names) {
  constexpr size_t kShown = 5;
  std::vector<std::string> shown;
  for (size_t i = 0; i < names.size() && i < kShown; ++i) shown.push_back(Quoted(names[i]));
  return absl::StrCat(directory, ": ", names.size(),
                      " tensors are not used by the model: ", absl::StrJoin(shown, ", "),
                      names.size() > kShown ? ", ..." : "");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const std::string& directory, Backend& backend,
                                                   const ModelOptions& options) {
  std::unique_ptr<Model> model(new Model());
  absl::StatusOr<ModelConfig> config = LoadConfig(absl::StrCat(directory, "/config.json"));
  if (!config.ok()) return config.status();
  model->config_ = *std::move(config);

  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(directory);
  if (!checkpoint.ok()) return checkpoint.status();
  absl::StatusOr<ModelWeights> weights =
      LoadWeights(*checkpoint, model->config_, backend, options.weight_type);
  if (!weights.ok()) return weights.status();
  backend.Synchronize();  // all of it is on the device
  model->weights_ = *std::move(weights);
  model->parameters_ = checkpoint->elements_used();
  const std::vector<std::string> unused = checkpoint->UnusedTensors();
  if (!unused.empty()) model->warnings_.push_back(UnusedWarning(directory, unused));
  return model;
}

ModelDescription Model::Describe(DType kv_dtype) const {
  ModelDescription description;
  description.kind = Name(config_.kind);
  description.parameters = parameters_;
  description.weight_dtype = weights_.dtype;
  description.kv_dtype = Name(kv_dtype);
  description.kv_element_bytes = static_cast<int32_t>(SizeOf(kv_dtype));
  description.kv_scale_bytes = static_cast<int32_t>(KvScaleBytes(kv_dtype));
  description.geometry = Geometry(config_, kv_dtype);
  description.decoder = catserve::Describe(config_.decoder);
  description.decoder_weight_bytes = weights_.stack.matrix_bytes();
  description.output_weight_bytes = weights_.output->bytes();
  if (config_.compresses()) {
    description.compressor = catserve::Describe(config_.compressor);
    description.compressor_weight_bytes = weights_.compressor.stack.matrix_bytes();
  }
  for (const auto& [chunk_size, projection] : weights_.compressor.projections) {
    description.projection_weight_bytes[chunk_size] = projection->bytes();
  }
  return description;
}

}  // namespace catserve

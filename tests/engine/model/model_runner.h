// A model, its executor and the plain steps that tests take with them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "engine/model/model_executor.h"
#include "kernels/backend.h"
#include "tests/engine/model/plan_writer.h"

namespace catserve::testing {

struct RunnerOptions {
  std::string backend = "cpu";
  int threads = 1;  // the models are tiny
  WeightType weight_type = WeightType::kAsStored;
  DType kv_dtype = DType::kF32;
  int32_t step_rows_max = 1024;
};

// Keeps the logits and fx of every step.
class ModelRunner {
 public:
  static constexpr int32_t kSlots = 4;
  static constexpr int32_t kPagesPerSlot = 300;

  ModelRunner(const std::string& directory, RunnerOptions options);  // throws on an error

  const Model& model() const { return *model_; }
  ModelExecutor& executor() { return *executor_; }
  ModelGeometry geometry() const;

  // An empty sequence whose pages lie in an odd order all over the memory.
  PlanWriter Sequence(int32_t slot, int32_t chunk_size) const;

  StepResult Run(const StepPlan& plan);

  // Runs the plan with a greedy draw from each of the rows added to it; returns their logits.
  std::vector<std::vector<float>> Logits(StepPlan plan, std::span<const int32_t> rows);

  // A prompt's logits, whole and token by token.
  std::vector<float> PrefillLogits(int32_t chunk_size, std::span<const TokenId> prompt);
  std::vector<std::vector<float>> StepwiseLogits(int32_t chunk_size, std::span<const TokenId> text);
  // The logits after every token of a text, computed as Score does it.
  std::vector<std::vector<float>> ScoreLogits(int32_t chunk_size, std::span<const TokenId> text);

  const std::vector<float>& fx() const { return executor_->trace().fx; }

 private:
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<ModelExecutor> executor_;
  DType kv_dtype_;
};

// The largest |a[i] - b[i]|; infinity if the sizes differ or a value is no number.
double MaxDifference(std::span<const float> a, std::span<const float> b);

}  // namespace catserve::testing

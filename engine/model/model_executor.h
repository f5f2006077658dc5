// Computes StepPlans with a model on a backend.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "engine/step.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace catserve {

struct ExecutorOptions {
  int32_t slots = 32;    // token histories: sequences that run at once
  int64_t kv_pages = 0;  // pages of KV memory, all taken at start
  // Asked instead, if given, once all other memory is taken. Its errors are Create's.
  std::function<absl::StatusOr<int64_t>()> choose_kv_pages;
  DType kv_dtype = DType::kF32;  // one that the backend holds
  int32_t step_rows_max = 1024;  // decoder rows, and compressions, of one step
  // Whether a device with a second stream compresses prompts there, beside the steps before.
  bool prompts_beside = true;
  bool keep_trace = false;  // for tests and tools: see trace()
};

// What a step computed on its way, copied to the host.
struct StepTrace {
  std::vector<float> fx;      // [compressions, dim], in the plan's order
  std::vector<float> logits;  // [samples + scores, vocab_size], in the plan's order
};

// All memory is taken by Create; a step allocates only small lists. What a step writes in device
// memory the next one finds, in order: drawn ids go to the token histories there. Plans are
// trusted; cheap invariants are checked and abort.
class ModelExecutor : public StepExecutor {
 public:
  // REQUIRES: model and backend outlive the executor. Errors: RESOURCE_EXHAUSTED with the numbers,
  // INVALID_ARGUMENT naming the option.
  static absl::StatusOr<std::unique_ptr<ModelExecutor>> Create(const Model& model, Backend& backend,
                                                               const ExecutorOptions& options);
  ~ModelExecutor() override;

  void Launch(const StepPlan& plan) override;
  StepResult Collect() override;
  int PipelineDepth() const override;  // the backend's StepsAhead

  int64_t kv_pages() const;
  // Of the last step collected; empty unless options.keep_trace.
  const StepTrace& trace() const;

 private:
  class Impl;
  explicit ModelExecutor(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace catserve

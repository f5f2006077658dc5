#include "tests/engine/model/model_runner.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "kernels/backend_factory.h"

namespace catserve::testing {

ModelRunner::ModelRunner(const std::string& directory, RunnerOptions options)
    : backend_(MakeBackend(options.backend, options.threads).value()),
      model_(Model::Load(directory, *backend_, {.weight_type = options.weight_type}).value()),
      kv_dtype_(options.kv_dtype) {
  executor_ = ModelExecutor::Create(*model_, *backend_,
                                    {.slots = kSlots,
                                     .kv_pages = kSlots * kPagesPerSlot,
                                     .kv_dtype = options.kv_dtype,
                                     .step_rows_max = options.step_rows_max,
                                     .keep_trace = true})
                  .value();
}

ModelGeometry ModelRunner::geometry() const { return Geometry(model_->config(), kv_dtype_); }

PlanWriter ModelRunner::Sequence(int32_t slot, int32_t chunk_size) const {
  std::vector<PageId> pages(kSlots * kPagesPerSlot);
  std::iota(pages.begin(), pages.end(), 0);
  std::shuffle(pages.begin(), pages.end(), std::mt19937(7));
  const auto first = pages.begin() + slot * kPagesPerSlot;
  return {geometry(), slot, chunk_size, {first, first + kPagesPerSlot}};
}

StepResult ModelRunner::Run(const StepPlan& plan) {
  executor_->Launch(plan);
  return executor_->Collect();
}

std::vector<std::vector<float>> ModelRunner::Logits(StepPlan plan, std::span<const int32_t> rows) {
  for (const int32_t row : rows) plan.scores.push_back({.row = row, .slot = 0, .position = 0});
  Run(plan);
  const std::vector<float>& logits = executor_->trace().logits;
  const size_t columns = geometry().vocab_size;
  std::vector<std::vector<float>> result;
  for (size_t i = 0; i < rows.size(); ++i) {
    result.emplace_back(logits.begin() + i * columns, logits.begin() + (i + 1) * columns);
  }
  return result;
}

std::vector<float> ModelRunner::PrefillLogits(int32_t chunk_size, std::span<const TokenId> prompt) {
  PlanWriter sequence = Sequence(0, chunk_size);
  StepPlan plan;
  const int32_t row = sequence.Prefill(prompt, plan);
  return Logits(plan, {&row, 1})[0];
}

std::vector<std::vector<float>> ModelRunner::StepwiseLogits(int32_t chunk_size,
                                                            std::span<const TokenId> text) {
  PlanWriter sequence = Sequence(0, chunk_size);
  StepPlan start;
  sequence.Prefill({}, start);
  sequence.Write(text, start);
  Run(start);
  std::vector<std::vector<float>> logits;
  for (size_t i = 0; i < text.size(); ++i) {
    StepPlan plan;
    const int32_t row = sequence.Accept(plan);
    logits.push_back(Logits(plan, {&row, 1})[0]);
  }
  return logits;
}

std::vector<std::vector<float>> ModelRunner::ScoreLogits(int32_t chunk_size,
                                                         std::span<const TokenId> text) {
  PlanWriter sequence = Sequence(0, chunk_size);
  StepPlan plan;
  const std::vector<int32_t> rows = sequence.ScoreAll(text, plan);
  return Logits(plan, rows);
}

double MaxDifference(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(static_cast<double>(a[i]) - b[i]);
    if (!(difference <= largest)) largest = difference;
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
  }
  return largest;
}

}  // namespace catserve::testing

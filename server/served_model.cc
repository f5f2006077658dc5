#include "server/served_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace catserve {

absl::StatusOr<Budget> ReadDefaultBudget(const std::string& text, const ModelGeometry& model) {
  Budget budget;
  if (text == "auto") {
    if (model.compresses()) {
      budget.automatic = true;
      budget.chunk_size_min = model.chunk_sizes.front();
      budget.chunk_size_max = model.chunk_sizes.back();
    }
    return budget;
  }
  if (!model.compresses()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--default_budget=", text,
                     ": a dense model has no chunk sizes; use --default_budget=auto"));
  }
  if (absl::SimpleAtoi(text, &budget.chunk_size) && model.Offers(budget.chunk_size)) return budget;
  return absl::InvalidArgumentError(absl::StrCat("--default_budget=", text,
                                                 " is not offered by this model: use auto or one "
                                                 "of ",
                                                 absl::StrJoin(model.chunk_sizes, ", ")));
}

std::map<int32_t, double> QualityLoss(const ModelCard& card, const ModelGeometry& model) {
  std::map<int32_t, double> loss;
  for (const int32_t chunk_size : model.chunk_sizes) {
    const auto measured = card.heldout_bits_per_byte.find(chunk_size);
    if (measured == card.heldout_bits_per_byte.end()) return {};
    loss.insert(*measured);
  }
  return loss;
}

int64_t LongestToken(const Tokenizer& tokenizer) {
  size_t longest = 0;
  for (int32_t id = 0; id < tokenizer.info().vocab_size; ++id) {
    longest = std::max(longest, tokenizer.TokenBytes(id).size());
  }
  return static_cast<int64_t>(longest);
}

absl::StatusOr<const Tokenizer*> RequireTokenizer(const ServedModel& model) {
  if (model.tokenizer != nullptr) return model.tokenizer.get();
  return model.tokenizer_missing;
}

void Gate::Open(std::unique_ptr<const ServedModel> model) {
  model_ = std::move(model);
  published_.store(model_.get(), std::memory_order_release);
  State loading = State::kLoading;  // a drain that came first wins
  state_.compare_exchange_strong(loading, State::kServing, std::memory_order_acq_rel);
}

absl::StatusOr<const ServedModel*> Gate::Enter() const {
  if (state() == State::kDraining) {
    return absl::UnavailableError("draining: the server is shutting down; use another one");
  }
  return Model();
}

absl::StatusOr<const ServedModel*> Gate::Model() const {
  const ServedModel* model = published_.load(std::memory_order_acquire);
  if (model == nullptr) {
    return absl::UnavailableError("loading: the model is not ready yet; try again soon");
  }
  return model;
}

}  // namespace catserve

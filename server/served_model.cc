#include "server/served_model.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "server/quality.h"

namespace catserve {
namespace {

absl::Status BadDefault(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("--default_budget=", text, why));
}

// "quality_loss_max=0.05" and the like, into the message. False if it is nothing of the kind.
bool ReadBound(absl::string_view text, v1::AutoBudget& budget) {
  double loss_max = 0;
  if (absl::ConsumePrefix(&text, "quality_loss_max=")) {
    if (!absl::SimpleAtod(text, &loss_max)) return false;
    budget.set_quality_loss_max(loss_max);
    return true;
  }
  if (!absl::ConsumePrefix(&text, "quality_task=")) return false;
  budget.set_quality_task(std::string(text));
  return true;
}

}  // namespace

absl::StatusOr<v1::Budget> ReadDefaultBudget(const std::string& text, const ServedModel& model) {
  const ModelGeometry& geometry = model.description.geometry;
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ',');
  v1::Budget budget;
  if (!geometry.compresses()) {
    if (text == "auto") return budget;
    return BadDefault(text, ": a dense model has no chunk sizes; use --default_budget=auto");
  }
  int32_t chunk_size = 0;
  if (parts.front() != "auto") {
    if (!absl::SimpleAtoi(text, &chunk_size) || !geometry.Offers(chunk_size)) {
      return BadDefault(text, absl::StrCat(" is not offered by this model: use auto or one of ",
                                           absl::StrJoin(geometry.chunk_sizes, ", ")));
    }
    budget.set_chunk_size(chunk_size);
    return budget;
  }
  v1::AutoBudget& bounds = *budget.mutable_auto_();
  bounds.set_chunk_size_min(geometry.chunk_sizes.front());
  bounds.set_chunk_size_max(geometry.chunk_sizes.back());
  for (size_t i = 1; i < parts.size(); ++i) {
    if (ReadBound(parts[i], bounds)) continue;
    return BadDefault(text, absl::StrCat(": \"", parts[i],
                                         "\" is no bound; allowed: quality_loss_max=0.05, "
                                         "quality_task=NAME"));
  }
  Budget unused;
  if (const absl::Status status = ReadQuality(bounds, model, unused); !status.ok()) {
    return BadDefault(text, absl::StrCat(": ", status.message()));
  }
  return budget;
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

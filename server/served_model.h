// Everything the services answer from, and whether they may answer yet.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "catserve/v1/generation.pb.h"
#include "engine/engine.h"
#include "engine/model_description.h"
#include "engine/text/tokenizer.h"
#include "server/model_card.h"

namespace catserve {

// Immutable once served; lives until the server is stopped.
struct ServedModel {
  Engine* engine = nullptr;  // outlives the server
  ModelDescription description;
  std::string name;                            // the card's, else the directory's
  std::string engine_name;                     // for example "cpu avx2, 2 threads"
  std::shared_ptr<const Tokenizer> tokenizer;  // null: the model directory has none
  absl::Status tokenizer_missing;              // FAILED_PRECONDITION that names the files, if so
  int64_t token_bytes_max = 0;                 // of the tokenizer's longest token
  ModelCard card;
  int32_t slots = 0;          // sequences that run at once
  v1::Budget default_budget;  // of a request that names none; unset: the model is dense
};

// The budget that `--default_budget` names: a chunk size the model offers, or "auto", which may be
// followed by ",quality_loss_max=0.05" and ",quality_task=NAME". Errors: INVALID_ARGUMENT naming
// what is allowed.
absl::StatusOr<v1::Budget> ReadDefaultBudget(const std::string& text, const ServedModel& model);

// Bytes of the longest token: a text of more than this times the context cannot fit into it.
int64_t LongestToken(const Tokenizer& tokenizer);

// The tokenizer of a served model. Errors: FAILED_PRECONDITION naming the files that are missing.
absl::StatusOr<const Tokenizer*> RequireTokenizer(const ServedModel& model);

// Loading, then serving, then draining: never back. Thread-safe, never waits.
class Gate {
 public:
  enum class State { kLoading, kServing, kDraining };

  State state() const { return state_.load(std::memory_order_acquire); }

  // REQUIRES: not opened before.
  void Open(std::unique_ptr<const ServedModel> model);
  void Drain() { state_.store(State::kDraining, std::memory_order_release); }

  // For new work. Errors: UNAVAILABLE while loading or draining.
  absl::StatusOr<const ServedModel*> Enter() const;

  // For questions about the model, also while draining. Errors: UNAVAILABLE while loading.
  absl::StatusOr<const ServedModel*> Model() const;

 private:
  std::atomic<State> state_{State::kLoading};
  std::unique_ptr<const ServedModel> model_;
  std::atomic<const ServedModel*> published_{nullptr};
};

}  // namespace catserve

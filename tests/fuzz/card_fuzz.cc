// Any text is either a model card or a Status that names the file; what is accepted keeps the
// promises of model_card.h and gives budgets that admission accepts or refuses, never worse.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>

#include "absl/strings/match.h"
#include "engine/schedule/budget.h"
#include "server/model_card.h"
#include "server/quality.h"

namespace catserve {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

bool IsMeasured(double value) { return value >= 0 && std::isfinite(value); }

void CheckTask(const QualityTask& task) {
  Require(!task.name.empty() && task.name.size() <= kTaskNameBytesMax);
  Require(task.name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") ==
          std::string::npos);
  Require(task.measure.find('\n') == std::string::npos);
  for (const auto& [chunk_size, value] : task.values) Require(chunk_size > 0 && IsMeasured(value));
  Require(!task.dense_twin.has_value() || IsMeasured(*task.dense_twin));
}

// Whatever a request asks of this card: the sizes that are left are ranked, the best among them.
void CheckBound(const ServedModel& model, const QualityTask& task, double loss_max) {
  const ModelGeometry& geometry = model.description.geometry;
  v1::AutoBudget message;
  message.set_quality_task(task.name);
  message.set_quality_loss_max(loss_max);
  Budget budget{.automatic = true};
  if (!ReadQuality(message, model, budget).ok()) {
    Require(LossOf(task, geometry).empty());
    return;
  }
  const Quality quality(QualityColumns(model.card, geometry));
  const std::vector<int32_t> allowed = AllowedChunkSizes(geometry, budget);
  Require(!allowed.empty());
  double least = INFINITY;
  for (const int32_t chunk_size : allowed) {
    const double loss = quality.Loss(budget, chunk_size);
    Require(loss >= 0 && loss <= loss_max + 1e-6);
    least = std::min(least, loss);
  }
  Require(least == 0);
}

}  // namespace
}  // namespace catserve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace catserve;
  const auto card = ParseModelCard({reinterpret_cast<const char*>(data), size}, "fuzz.json");
  if (!card.ok()) {
    Require(absl::StartsWith(card.status().message(), "fuzz.json: "));
    return 0;
  }
  ServedModel model;
  model.card = *card;
  model.description.geometry = {
      .kind = ModelKind::kCat, .chunk_sizes = {4, 8, 16}, .block_size = 128, .vocab_size = 9};
  std::set<std::string> names;
  for (const QualityTask& task : card->tasks) {
    CheckTask(task);
    Require(names.insert(task.name).second);
    for (const double loss_max : {0.0, 0.05, 1.0}) CheckBound(model, task, loss_max);
  }
  return 0;
}

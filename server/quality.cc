#include "server/quality.h"

#include <algorithm>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"

namespace catserve {
namespace {

// Where the best value is 0, any other loses without measure; finite, so that losses subtract.
constexpr double kLossMost = 1e6;
// 0.6 is within a quarter of 0.8, whatever binary fractions say.
constexpr double kRounding = 1e-9;

absl::Status NotMeasured(absl::string_view what) {
  return absl::FailedPreconditionError(
      absl::StrCat("budget.auto: ", what,
                   "; `make evaluate MODEL=DIRECTORY` measures this model "
                   "and writes its card.json; until then leave quality_loss_max and quality_task "
                   "unset"));
}

absl::StatusOr<size_t> FindTask(const v1::AutoBudget& message, const ModelCard& card) {
  if (!message.has_quality_task()) return 0;
  const auto task = std::find_if(card.tasks.begin(), card.tasks.end(), [&](const QualityTask& t) {
    return t.name == message.quality_task();
  });
  if (task != card.tasks.end()) return task - card.tasks.begin();
  const auto append_name = [](std::string* out, const QualityTask& t) { out->append(t.name); };
  return absl::InvalidArgumentError(
      absl::StrCat("auto.quality_task is not on the model's card; allowed: ",
                   absl::StrJoin(card.tasks, ", ", append_name)));
}

}  // namespace

QualityColumn LossOf(const QualityTask& task, const ModelGeometry& model) {
  QualityColumn column;
  for (const int32_t chunk_size : model.chunk_sizes) {
    const auto value = task.values.find(chunk_size);
    if (value != task.values.end()) column.insert(*value);
  }
  if (column.empty()) return column;
  const auto [low, high] =
      std::minmax_element(column.begin(), column.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; });
  const double best = task.higher_is_better ? high->second : low->second;
  const double unit = std::max(best, std::numeric_limits<double>::min());
  for (auto& [chunk_size, value] : column) {
    const double lost = task.higher_is_better ? best - value : value - best;
    value = std::min(lost / unit, kLossMost);
  }
  return column;
}

std::vector<QualityColumn> QualityColumns(const ModelCard& card, const ModelGeometry& model) {
  std::vector<QualityColumn> columns(1);
  for (const QualityTask& task : card.tasks) columns.push_back(LossOf(task, model));
  if (!card.tasks.empty() && columns[1].size() == model.chunk_sizes.size()) {
    columns.front() = columns[1];
  }
  return columns;
}

absl::Status ReadQuality(const v1::AutoBudget& message, const ServedModel& model, Budget& budget) {
  if (!message.has_quality_loss_max() && !message.has_quality_task()) return absl::OkStatus();
  const double loss_max = message.has_quality_loss_max() ? message.quality_loss_max() : kLossMost;
  if (message.has_quality_loss_max() && !(loss_max >= 0 && loss_max <= 1)) {  // also NaN
    return absl::InvalidArgumentError(
        absl::StrCat("auto.quality_loss_max ", loss_max, " is out of range; allowed: 0 to 1"));
  }
  const ModelCard& card = model.card;
  if (card.tasks.empty()) return NotMeasured("the model's card has no measured quality");
  const absl::StatusOr<size_t> task = FindTask(message, card);
  if (!task.ok()) return task.status();
  const QualityColumn column = LossOf(card.tasks[*task], model.description.geometry);
  if (column.empty()) {
    return NotMeasured(absl::StrCat("the model's card has no value of task ",
                                    card.tasks[*task].name, " at a chunk size offered"));
  }
  for (const auto& [chunk_size, loss] : column) {
    if (loss <= loss_max + kRounding) budget.among.push_back(chunk_size);
  }
  budget.quality_column = static_cast<int32_t>(1 + *task);
  return absl::OkStatus();
}

}  // namespace catserve

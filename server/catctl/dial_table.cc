#include "server/catctl/dial_table.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace catserve {
namespace {

using Row = std::vector<std::string>;  // shorter than the head: the rest is empty

// Every column as wide as its widest cell, to the right.
std::string Lay(const std::vector<Row>& rows) {
  std::vector<size_t> widths;
  for (const Row& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      absl::StrAppend(&line, i == 0 ? "" : "  ", std::string(widths[i] - row[i].size(), ' '),
                      row[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&text, line, "\n");
  }
  return text;
}

// Marked or as wide as if it were, so that the digits stand one below the other.
std::string Marked(const std::string& text, bool best) { return text + (best ? "*" : " "); }

std::string ValueAt(const v1::QualityTask& task, int32_t chunk_size) {
  for (const v1::QualityValue& value : task.values()) {
    if (value.chunk_size() == chunk_size) {
      return Marked(QualityText(value.value()), value.loss() == 0);
    }
  }
  return Marked("-", false);
}

// In the order of their names, numbers by their size: recall_4, recall_8, recall_16.
std::vector<const v1::QualityTask*> TasksByName(const v1::GetModelResponse& model) {
  std::vector<const v1::QualityTask*> tasks;
  for (const v1::QualityTask& task : model.quality_tasks()) tasks.push_back(&task);
  std::sort(tasks.begin(), tasks.end(), [](const v1::QualityTask* a, const v1::QualityTask* b) {
    return strverscmp(a->name().c_str(), b->name().c_str()) < 0;
  });
  return tasks;
}

std::string Legend(const v1::GetModelResponse& model) {
  if (model.quality_tasks().empty()) {
    return "quality: not measured; `make evaluate MODEL=DIRECTORY` writes it to the model's card\n";
  }
  std::string text =
      "\n* best. A request may bound what it loses: --auto --quality-loss-max=0.05\n";
  const char* before = "--quality-task ";
  for (const v1::QualityTask* const task : TasksByName(model)) {
    const bool is_default = task == &model.quality_tasks(0);
    absl::StrAppend(&text, before, task->name(), ": ", task->measure(), ", ",
                    task->higher_is_better() ? "higher" : "lower", " is better",
                    is_default ? " (the default)\n" : "\n");
    before = "            or ";
  }
  return text;
}

}  // namespace

std::string QualityText(double value) { return absl::StrFormat("%.4f", value); }

std::string DialTable(const v1::GetModelResponse& model) {
  const auto bytes = [](double number) { return absl::StrFormat("%.0f", number); };
  const bool dial = !model.chunk_sizes().empty();
  std::vector<Row> rows = {{"chunk size", "KV bytes/1,000 tokens", "decode cost"}};
  for (const v1::ChunkSizeInfo& info : model.chunk_sizes()) {
    rows.push_back({absl::StrCat(info.chunk_size()), bytes(info.kv_bytes_per_1000_tokens()),
                    absl::StrFormat("%.3f", info.relative_decode_cost())});
  }
  if (model.dense_twin_kv_bytes_per_1000_tokens() > 0) {
    rows.push_back({"dense twin", bytes(model.dense_twin_kv_bytes_per_1000_tokens()), "1.000"});
  }
  for (const v1::QualityTask* const task : TasksByName(model)) {
    if (!dial) break;
    rows[0].push_back(Marked(task->name(), false));
    for (int i = 0; i < model.chunk_sizes_size(); ++i) {
      rows[1 + i].push_back(ValueAt(*task, model.chunk_sizes(i).chunk_size()));
    }
    if (model.dense_twin_kv_bytes_per_1000_tokens() > 0) {
      rows.back().push_back(
          Marked(task->has_dense_twin() ? QualityText(task->dense_twin()) : "-", false));
    }
  }
  rows.push_back({"same width", bytes(model.dense_same_width_kv_bytes_per_1000_tokens())});
  return Lay(rows) + (dial ? Legend(model) : "");
}

}  // namespace catserve

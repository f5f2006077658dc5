#include "server/model_card.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace catserve {
namespace {

using Json = nlohmann::json;

constexpr int kDepthMax = 16;
constexpr double kMeasuredMax = 1e9;  // beyond it is no measure of quality
constexpr int32_t kChunkSizeMax = 1 << 20;
constexpr size_t kNameBytesMax = 128;
constexpr size_t kQualityRowsMax = 64;

absl::Status Invalid(absl::string_view file, absl::string_view field, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", field, " ", problem));
}

// Parses with a bound on nesting: the library recurses when it destroys or copies a value.
absl::StatusOr<Json> ParseBounded(absl::string_view text, absl::string_view file) {
  bool too_deep = false;
  const auto watch_depth = [&](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > kDepthMax;
    return !too_deep;
  };
  Json json;
  try {
    json = Json::parse(text, watch_depth);
  } catch (const Json::parse_error& error) {
    return Invalid(file, "the document", absl::StrCat("is no valid JSON at byte ", error.byte));
  } catch (const Json::exception&) {
    return Invalid(file, "the document", "is no valid JSON: a number is out of range");
  }
  if (too_deep) return Invalid(file, "the document", "is nested more than 16 deep");
  if (!json.is_object()) return Invalid(file, "the document", "must be a JSON object");
  return json;
}

absl::StatusOr<int32_t> PositiveInt(const Json& object, absl::string_view prefix, const char* key,
                                    int32_t max, absl::string_view file) {
  const auto it = object.find(key);
  if (it != object.end() && it->is_number_integer()) {
    const double value = it->get<double>();
    if (value >= 1 && value <= max) return static_cast<int32_t>(value);
  }
  return Invalid(file, absl::StrCat(prefix, key),
                 absl::StrCat("must be an integer from 1 to ", max));
}

// A number from 0 to kMeasuredMax; nothing where it is absent or null: not measured yet.
absl::StatusOr<std::optional<double>> Measured(const Json& object, absl::string_view prefix,
                                               const char* key, absl::string_view file) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return std::nullopt;
  const double value = it->is_number() ? it->get<double>() : -1;
  if (value >= 0 && value <= kMeasuredMax) return std::abs(value);  // -0 is 0
  return Invalid(file, absl::StrCat(prefix, key), "must be a number from 0 to 1e9");
}

absl::Status ReadTwin(const Json& json, absl::string_view file, ModelCard& card) {
  if (!json.is_object()) return Invalid(file, "dense_twin", "must be an object");
  DenseTwin twin;
  struct Field {
    const char* key;
    int32_t* value;
    int32_t max;  // as of a model that could be served: the bytes of a context fit 64 bits
  };
  for (const Field& field :
       {Field{"dim", &twin.dim, 1 << 16}, Field{"n_layer", &twin.layers, 1024},
        Field{"n_local_heads", &twin.kv_heads, 1024}, Field{"head_dim", &twin.head_dim, 256}}) {
    const absl::StatusOr<int32_t> number =
        PositiveInt(json, "dense_twin.", field.key, field.max, file);
    if (!number.ok()) return number.status();
    *field.value = *number;
  }
  if (twin.dim % twin.head_dim != 0) {
    return Invalid(file, "dense_twin.head_dim", absl::StrCat("must divide dim (", twin.dim, ")"));
  }
  const auto bits = Measured(json, "dense_twin.", "heldout_bits_per_byte", file);
  if (!bits.ok()) return bits.status();
  twin.heldout_bits_per_byte = *bits;
  card.dense_twin = twin;
  return absl::OkStatus();
}

// A list like [{"chunk_size": 8, KEY: 1.9}], the values by chunk size.
absl::StatusOr<std::map<int32_t, double>> ReadColumn(const Json& json, const std::string& field,
                                                     const char* key, absl::string_view file) {
  if (!json.is_array() || json.size() > kQualityRowsMax) {
    return Invalid(file, field, "must be a list of at most 64 objects");
  }
  std::map<int32_t, double> column;
  for (size_t i = 0; i < json.size(); ++i) {
    const std::string row = absl::StrCat(field, "[", i, "]");
    if (!json[i].is_object()) return Invalid(file, row, "must be an object");
    const std::string prefix = row + ".";
    const absl::StatusOr<int32_t> size =
        PositiveInt(json[i], prefix, "chunk_size", kChunkSizeMax, file);
    if (!size.ok()) return size.status();
    const absl::StatusOr<std::optional<double>> value = Measured(json[i], prefix, key, file);
    if (!value.ok()) return value.status();
    if (value->has_value() && !column.emplace(*size, **value).second) {
      return Invalid(file, prefix + "chunk_size", absl::StrCat("gives ", *size, " twice"));
    }
  }
  return column;
}

absl::Status ReadQuality(const Json& json, absl::string_view file, ModelCard& card) {
  absl::StatusOr<std::map<int32_t, double>> column =
      ReadColumn(json, "quality", "heldout_bits_per_byte", file);
  if (!column.ok()) return column.status();
  card.heldout_bits_per_byte = *std::move(column);
  return absl::OkStatus();
}

// A terminal would obey it: of ASCII, or U+0080 to U+009F, whose first byte is 0xC2.
bool HoldsControl(absl::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (absl::ascii_iscntrl(text[i])) return true;
    if (text[i] == '\xC2' && i + 1 < text.size() && text[i + 1] < '\xA0') return true;
  }
  return false;
}

// One line of at most kNameBytesMax bytes.
absl::StatusOr<std::string> ReadLine(const Json* json, const std::string& field,
                                     absl::string_view file) {
  if (json == nullptr || !json->is_string()) return Invalid(file, field, "must be a string");
  std::string text = json->get<std::string>();
  if (text.size() > kNameBytesMax) return Invalid(file, field, "is longer than 128 bytes");
  if (HoldsControl(text)) return Invalid(file, field, "holds a control character");
  return text;
}

absl::Status ReadName(const Json& json, absl::string_view file, ModelCard& card) {
  absl::StatusOr<std::string> name = ReadLine(&json, "name", file);
  if (!name.ok()) return name.status();
  card.name = *std::move(name);
  return absl::OkStatus();
}

bool IsTaskName(absl::string_view name) {
  return !name.empty() && name.size() <= kTaskNameBytesMax &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_';
         });
}

absl::StatusOr<QualityTask> ReadTask(const Json& json, const std::string& field,
                                     absl::string_view file) {
  if (!json.is_object()) return Invalid(file, field, "must be an object");
  const std::string prefix = field + ".";
  const auto member = [&json](const char* key) {
    const auto it = json.find(key);
    return it == json.end() ? nullptr : &*it;
  };
  QualityTask task;
  for (const auto& [key, text] :
       {std::pair("name", &task.name), std::pair("measure", &task.measure)}) {
    absl::StatusOr<std::string> line = ReadLine(member(key), prefix + key, file);
    if (!line.ok()) return line.status();
    *text = *std::move(line);
  }
  if (!IsTaskName(task.name)) {
    return Invalid(file, prefix + "name", "must be 1 to 32 characters of [a-z0-9_]");
  }
  const Json* const better = member("better");
  if (better == nullptr || (*better != "lower" && *better != "higher")) {
    return Invalid(file, prefix + "better", "must be \"lower\" or \"higher\"");
  }
  task.higher_is_better = *better == "higher";
  const Json* const values = member("values");
  absl::StatusOr<std::map<int32_t, double>> column =
      ReadColumn(values == nullptr ? Json() : *values, prefix + "values", "value", file);
  if (!column.ok()) return column.status();
  task.values = *std::move(column);
  const auto twin = Measured(json, prefix, "dense_twin", file);
  if (!twin.ok()) return twin.status();
  task.dense_twin = *twin;
  return task;
}

absl::Status ReadTasks(const Json& json, absl::string_view file, ModelCard& card) {
  if (!json.is_array() || json.size() > kTasksMax) {
    return Invalid(file, "tasks",
                   absl::StrCat("must be a list of at most ", kTasksMax, " objects"));
  }
  for (size_t i = 0; i < json.size(); ++i) {
    const std::string field = absl::StrCat("tasks[", i, "]");
    absl::StatusOr<QualityTask> task = ReadTask(json[i], field, file);
    if (!task.ok()) return task.status();
    const auto same = [&](const QualityTask& other) { return other.name == task->name; };
    if (std::any_of(card.tasks.begin(), card.tasks.end(), same)) {
      return Invalid(file, field + ".name", absl::StrCat("gives ", task->name, " twice"));
    }
    card.tasks.push_back(*std::move(task));
  }
  return absl::OkStatus();
}

// What a card from before there were tasks says.
QualityTask TextTask(const ModelCard& card) {
  QualityTask task;
  task.name = "text";
  task.measure = "bits per byte of held-out text";
  task.values = card.heldout_bits_per_byte;
  if (card.dense_twin.has_value()) task.dense_twin = card.dense_twin->heldout_bits_per_byte;
  return task;
}

}  // namespace

absl::StatusOr<ModelCard> ParseModelCard(absl::string_view text, absl::string_view file) {
  const absl::StatusOr<Json> json = ParseBounded(text, file);
  if (!json.ok()) return json.status();
  ModelCard card;
  using Reader = absl::Status (*)(const Json&, absl::string_view, ModelCard&);
  const std::initializer_list<std::pair<const char*, Reader>> fields = {
      {"name", ReadName}, {"dense_twin", ReadTwin}, {"quality", ReadQuality}, {"tasks", ReadTasks}};
  for (const auto& [key, read] : fields) {
    const auto it = json->find(key);
    if (it == json->end() || it->is_null()) continue;
    if (const absl::Status status = read(*it, file, card); !status.ok()) return status;
  }
  if (card.tasks.empty() && !card.heldout_bits_per_byte.empty()) card.tasks = {TextTask(card)};
  return card;
}

absl::StatusOr<ModelCard> LoadModelCard(const std::string& model_dir) {
  const std::string path = (std::filesystem::path(model_dir) / "card.json").string();
  std::error_code error;
  const std::filesystem::file_status entry = std::filesystem::symlink_status(path, error);
  if (entry.type() == std::filesystem::file_type::not_found) return ModelCard{};
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is no regular file; a card is optional, remove it or mend it"));
  }
  std::ifstream in(path, std::ios::binary);
  std::string text(kCardBytesMax + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (!in.eof() && !in) return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  if (text.size() > kCardBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is larger than 1 MiB"));
  }
  return ParseModelCard(text, path);
}

}  // namespace catserve

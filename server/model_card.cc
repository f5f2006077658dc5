#include "server/model_card.h"

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
  Json json = Json::parse(text, watch_depth, /*allow_exceptions=*/false);
  if (too_deep) return Invalid(file, "the document", "is nested more than 16 deep");
  if (!json.is_object()) return Invalid(file, "the document", "must be a JSON object");
  return json;
}

absl::StatusOr<int32_t> PositiveInt(const Json& object, absl::string_view prefix, const char* key,
                                    absl::string_view file) {
  const auto it = object.find(key);
  if (it != object.end() && it->is_number_integer()) {
    const double value = it->get<double>();
    if (value >= 1 && value <= 1 << 20) return static_cast<int32_t>(value);
  }
  return Invalid(file, absl::StrCat(prefix, key), "must be an integer from 1 to 1048576");
}

absl::Status ReadTwin(const Json& json, absl::string_view file, ModelCard& card) {
  if (!json.is_object()) return Invalid(file, "dense_twin", "must be an object");
  DenseTwin twin;
  const std::initializer_list<std::pair<const char*, int32_t*>> fields = {
      {"dim", &twin.dim},
      {"n_layer", &twin.layers},
      {"n_local_heads", &twin.kv_heads},
      {"head_dim", &twin.head_dim}};
  for (const auto& [key, value] : fields) {
    const absl::StatusOr<int32_t> number = PositiveInt(json, "dense_twin.", key, file);
    if (!number.ok()) return number.status();
    *value = *number;
  }
  card.dense_twin = twin;
  return absl::OkStatus();
}

absl::Status ReadQuality(const Json& json, absl::string_view file, ModelCard& card) {
  if (!json.is_array() || json.size() > kQualityRowsMax) {
    return Invalid(file, "quality", "must be a list of at most 64 objects");
  }
  for (size_t i = 0; i < json.size(); ++i) {
    const std::string prefix = absl::StrCat("quality[", i, "].");
    if (!json[i].is_object()) return Invalid(file, absl::StrCat("quality[", i, "]"), "no object");
    const absl::StatusOr<int32_t> size = PositiveInt(json[i], prefix, "chunk_size", file);
    if (!size.ok()) return size.status();
    const auto it = json[i].find("heldout_bits_per_byte");
    if (it == json[i].end() || it->is_null()) continue;  // not measured yet
    const double bits = it->is_number() ? it->get<double>() : -1;
    if (!(bits >= 0 && std::isfinite(bits))) {
      return Invalid(file, prefix + "heldout_bits_per_byte", "must be a number, 0 or more");
    }
    if (!card.heldout_bits_per_byte.emplace(*size, bits).second) {
      return Invalid(file, prefix + "chunk_size", absl::StrCat("gives ", *size, " twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadName(const Json& json, absl::string_view file, ModelCard& card) {
  if (!json.is_string()) return Invalid(file, "name", "must be a string");
  card.name = json.get<std::string>();
  if (card.name.size() > kNameBytesMax) return Invalid(file, "name", "is longer than 128 bytes");
  for (const char c : card.name) {
    if (absl::ascii_iscntrl(c)) return Invalid(file, "name", "holds a control character");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelCard> ParseModelCard(absl::string_view text, absl::string_view file) {
  const absl::StatusOr<Json> json = ParseBounded(text, file);
  if (!json.ok()) return json.status();
  ModelCard card;
  using Reader = absl::Status (*)(const Json&, absl::string_view, ModelCard&);
  const std::initializer_list<std::pair<const char*, Reader>> fields = {
      {"name", ReadName}, {"dense_twin", ReadTwin}, {"quality", ReadQuality}};
  for (const auto& [key, read] : fields) {
    const auto it = json->find(key);
    if (it == json->end() || it->is_null()) continue;
    if (const absl::Status status = read(*it, file, card); !status.ok()) return status;
  }
  return card;
}

absl::StatusOr<ModelCard> LoadModelCard(const std::string& model_dir) {
  const std::string path = (std::filesystem::path(model_dir) / "card.json").string();
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return ModelCard{};
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is no regular file"));
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

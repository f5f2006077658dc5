#include "engine/model/json.h"

#include <algorithm>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace catserve {
namespace {

using nlohmann::json;

// Counts depth and values before anything is allocated. Knows only strings and punctuation: what is
// no JSON is the parser's to refuse.
absl::Status CheckLimits(std::string_view text, const std::string& file, JsonLimits limits) {
  int depth = 0;
  int64_t values = 1;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    if (c == '{' || c == '[' || c == ',') ++values;
    if (depth > limits.depth) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": is nested deeper than ", limits.depth, " levels"));
    }
    if (values > limits.values) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": holds more than ", limits.values, " values"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<json> ParseJsonObject(std::string_view text, const std::string& file,
                                     JsonLimits limits) {
  if (absl::Status status = CheckLimits(text, file, limits); !status.ok()) return status;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  std::string repeated;
  const auto watch_keys = [&](int, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key) {
      const std::string& key = value.get_ref<const std::string&>();
      if (!keys.back().insert(key).second && repeated.empty()) repeated = Quoted(key);
    }
    return true;
  };
  json document;
  try {
    document = json::parse(text, watch_keys);
  } catch (const json::parse_error& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": is not valid JSON at byte ", error.byte));
  } catch (const json::exception&) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": is not valid JSON: a number is out of range"));
  }
  if (!repeated.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": the key ", repeated, " stands twice"));
  }
  if (!document.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": is not a JSON object"));
  }
  return document;
}

std::string Quoted(const std::string& name) {
  constexpr size_t kShown = 100;
  const std::string shown = absl::CHexEscape(name.substr(0, kShown));
  return absl::StrCat("\"", shown, name.size() > kShown ? "..." : "", "\"");
}

}  // namespace catserve

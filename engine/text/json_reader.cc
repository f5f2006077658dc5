#include "engine/text/json_reader.h"

#include <algorithm>
#include <limits>

#include "engine/text/message.h"
#include "engine/text/token_table.h"

namespace catserve {
namespace {

// Counts brackets and commas outside strings, which bounds depth and values of whatever a parser
// will find there.
absl::Status CheckLimits(std::string_view text) {
  if (text.size() > kJsonBytesMax) {
    return absl::InvalidArgumentError(Message(text.size(), " bytes; at most ", kJsonBytesMax));
  }
  int depth = 0;
  size_t values = 1;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {
      in_string = !in_string;
    } else if (in_string) {
      if (c == '\\') ++i;
    } else if (c == '[' || c == '{') {
      ++values;
      if (++depth > kJsonDepthMax) {
        return absl::InvalidArgumentError(
            Message("nested deeper than ", kJsonDepthMax, " levels at byte ", i));
      }
    } else if (c == ']' || c == '}') {
      --depth;
    } else if (c == ',' && ++values > kJsonValuesMax) {
      return absl::InvalidArgumentError(Message("more than ", kJsonValuesMax, " values"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseBoundedJson(std::string_view text) {
  if (absl::Status status = CheckLimits(text); !status.ok()) return status;
  // The library reports through exceptions; none leaves this function. Its messages may quote
  // any amount of the file, so they stay here too.
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    return absl::InvalidArgumentError(Message("not valid JSON at byte ", error.byte));
  } catch (const nlohmann::json::exception&) {
    return absl::InvalidArgumentError("not valid JSON: a number is out of range");
  }
}

JsonField JsonField::operator[](std::string_view key) const {
  static const nlohmann::json kAbsent;
  std::string path = path_.empty() ? std::string(key) : Message(path_, ".", key);
  if (!value_->is_object()) return JsonField(kAbsent, std::move(path), first_error_);
  const auto found = value_->find(key);
  return JsonField(found == value_->end() ? kAbsent : *found, std::move(path), first_error_);
}

std::string JsonField::String() const {
  if (value_->is_string()) return value_->get<std::string>();
  Invalid("must be a string");
  return {};
}

std::string JsonField::StringOr(std::string_view if_null) const {
  return IsNull() ? std::string(if_null) : String();
}

bool JsonField::BoolOr(bool if_null) const {
  if (value_->is_boolean()) return value_->get<bool>();
  if (!IsNull()) Invalid("must be true or false");
  return if_null;
}

int32_t JsonField::Int32() const {
  // An unsigned number above the signed range would wrap on its way into int64_t.
  constexpr uint64_t kLargest = std::numeric_limits<int32_t>::max();
  if (value_->is_number_unsigned() && value_->get<uint64_t>() <= kLargest) {
    return value_->get<int32_t>();
  }
  Invalid("must be a whole number from 0 to 2147483647");
  return 0;
}

std::vector<JsonField> JsonField::Items() const {
  std::vector<JsonField> items;
  if (!value_->is_array()) {
    if (!IsNull()) Invalid("must be a list");
    return items;
  }
  items.reserve(value_->size());
  for (const nlohmann::json& item : *value_) {
    items.emplace_back(item, Message(path_, "[", items.size(), "]"), first_error_);
  }
  return items;
}

void JsonField::AllowOnly(std::initializer_list<std::string_view> keys) const {
  if (!value_->is_object()) return Invalid("must be an object");
  for (const auto& [key, unused] : value_->items()) {
    if (std::ranges::find(keys, key) == keys.end()) {
      Unsupported(Message("the field ", Quoted(key), " is not known"));
    }
  }
}

void JsonField::Invalid(std::string_view why) const {
  Fail(absl::StatusCode::kInvalidArgument, why);
}

void JsonField::Unsupported(std::string_view why) const {
  Fail(absl::StatusCode::kUnimplemented, why);
}

void JsonField::Fail(absl::StatusCode code, std::string_view why) const {
  if (!first_error_->ok()) return;
  *first_error_ = absl::Status(code, Message(path_.empty() ? "the file" : path_, ": ", why));
}

}  // namespace catserve

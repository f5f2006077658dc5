#include "engine/model/field_reader.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"

namespace catserve {

using nlohmann::json;

int32_t FieldReader::Int(const char* name, int64_t min, int64_t max) {
  const json* value = Find(name);
  if (value == nullptr) return 0;
  if (value->is_number_integer()) {
    const bool huge =
        value->is_number_unsigned() && value->get<uint64_t>() > std::numeric_limits<int64_t>::max();
    const int64_t number = huge ? std::numeric_limits<int64_t>::max() : value->get<int64_t>();
    if (number >= min && number <= max) return static_cast<int32_t>(number);
  }
  Fail(name, *value, absl::StrCat("an integer from ", min, " to ", max));
  return 0;
}

int32_t FieldReader::IntOr(const char* name, int64_t min, int64_t max, int32_t otherwise) {
  return Has(name) ? Int(name, min, max) : otherwise;
}

double FieldReader::Positive(const char* name, double max) {
  const json* value = Find(name);
  if (value == nullptr) return 0;
  const double number = value->is_number() ? value->get<double>() : 0;
  if (std::isfinite(number) && number > 0 && number <= max) return number;
  Fail(name, *value, absl::StrCat("a number above 0 and at most ", max));
  return 0;
}

double FieldReader::PositiveOr(const char* name, double max, double otherwise) {
  return Has(name) ? Positive(name, max) : otherwise;
}

bool FieldReader::BoolOr(const char* name, bool otherwise) {
  if (!Has(name)) return otherwise;
  const json& value = object_[name];
  if (value.is_boolean()) return value.get<bool>();
  Fail(name, value, "true or false");
  return otherwise;
}

void FieldReader::Exactly(const char* name, int64_t number, const char* reason) {
  const json* value = Find(name);
  if (value == nullptr || (value->is_number_integer() && *value == number)) return;
  Fail(name, *value, absl::StrCat(number, " (", reason, ")"));
}

bool FieldReader::Has(const char* name) const {
  const auto value = object_.find(name);
  return value != object_.end() && !value->is_null();
}

void FieldReader::Fail(const char* name, const json& value, const std::string& allowed) {
  if (!status_.ok()) return;
  const bool scalar = value.is_primitive() && !value.is_string();
  status_ = absl::InvalidArgumentError(absl::StrCat(
      where_, name, " is ", scalar ? value.dump() : value.type_name(), ", expected ", allowed));
}

const json* FieldReader::Find(const char* name) {
  const auto value = object_.find(name);
  if (value != object_.end()) return &*value;
  if (status_.ok()) {
    status_ = absl::InvalidArgumentError(absl::StrCat(where_, name, " is missing"));
  }
  return nullptr;
}

}  // namespace catserve

// Reading untrusted JSON: bounded, and with errors that name the field.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace catserve {

inline constexpr size_t kJsonBytesMax = size_t{64} << 20;
inline constexpr int kJsonDepthMax = 32;
// Each value costs up to some 100 bytes once read; a vocabulary of 256k tokens with 500k merges
// has under 2M.
inline constexpr size_t kJsonValuesMax = size_t{3} << 20;

// InvalidArgument: not JSON (names the byte), or beyond a limit above. The limits are checked
// before anything is allocated.
absl::StatusOr<nlohmann::json> ParseBoundedJson(std::string_view text);

// A value inside a document, and the path to it. Reading never fails on the spot: the first error
// goes into the status shared by all fields of the document, and a default is returned. So read
// all that is needed, then look at the status once. Borrows the document and the status.
class JsonField {
 public:
  JsonField(const nlohmann::json& value, std::string path, absl::Status* first_error)
      : value_(&value), path_(std::move(path)), first_error_(first_error) {}

  // An absent field reads as null, and so does any field of what is not an object.
  JsonField operator[](std::string_view key) const;
  bool IsNull() const { return value_->is_null(); }

  std::string String() const;
  std::string StringOr(std::string_view if_null) const;
  bool BoolOr(bool if_null) const;
  int32_t Int32() const;
  std::vector<JsonField> Items() const;  // null: none

  // An error unless the value is an object without other fields than these: what we do not know
  // might change the result.
  void AllowOnly(std::initializer_list<std::string_view> keys) const;

  void Invalid(std::string_view why) const;      // InvalidArgument
  void Unsupported(std::string_view why) const;  // Unimplemented

  const nlohmann::json& value() const { return *value_; }
  const std::string& path() const { return path_; }

 private:
  void Fail(absl::StatusCode code, std::string_view why) const;

  const nlohmann::json* value_;
  std::string path_;
  absl::Status* first_error_;
};

}  // namespace catserve

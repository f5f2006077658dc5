// JSON from untrusted files.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace catserve {

// What a document may hold, so that a small file cannot cost much memory or stack.
struct JsonLimits {
  int depth = 16;
  int64_t values = 1 << 16;
};

// Parses an object. Errors: INVALID_ARGUMENT in one line that starts with `file`: no JSON, a key
// given twice, a limit exceeded, or a document that is no object.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, const std::string& file,
                                               JsonLimits limits);

// A name from a file as an error message may show it: quoted, control characters escaped, cut.
std::string Quoted(const std::string& name);

}  // namespace catserve

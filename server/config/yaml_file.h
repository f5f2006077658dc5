// YAML as this server takes it: one small document of maps, lists and scalars, without anchors,
// aliases and tags, and with the line of everything for errors to name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace catserve {

struct YamlNode {
  enum class Kind : uint8_t { kNull, kScalar, kList, kMap };

  Kind kind = Kind::kNull;
  int line = 1;                 // where it starts, from 1; of a map's item: its key's
  std::string key;              // of a map's item; unique in the map
  std::string text;             // of a scalar
  bool quoted = false;          // a scalar in quotes: a text even if it looks like a number
  std::vector<YamlNode> items;  // of a list or map, in the file's order
};

struct YamlLimits {
  size_t bytes_max = 0;
  size_t depth_max = 0;  // lists and maps within each other
};

// Errors: INVALID_ARGUMENT "NAME:LINE: ..." with the remedy.
absl::StatusOr<YamlNode> ParseYaml(absl::string_view text, const std::string& name,
                                   const YamlLimits& limits);

// The whole file. Errors: INVALID_ARGUMENT naming the file: unreadable, no
// regular file (pipes would wait), or larger than `bytes_max`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t bytes_max);

// What the file says, made safe for a terminal and short.
std::string Quote(absl::string_view text);

// "NAME:LINE: what" as INVALID_ARGUMENT.
template <typename... What>
absl::Status FileError(const std::string& name, int line, const What&... what) {
  return absl::InvalidArgumentError(absl::StrCat(name, ":", line, ": ", what...));
}

}  // namespace catserve

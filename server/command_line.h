// Reads command lines into absl flags with errors as values: absl's own parser exits with code 1
// and does not take `--chunk-size` for `--chunk_size`.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace catserve {

// Sets the flags that `args` (without the program's name) names, as --name=value, --name value,
// --name or --noname (booleans); '-' and '_' in names are the same. Only flags defined in a file
// whose path contains `folder` exist. Returns the other arguments in order; everything
// after "--" is one of them, and so is "-". Errors: INVALID_ARGUMENT, one line with the remedy.
absl::StatusOr<std::vector<std::string>> ParseCommandLine(const std::vector<std::string>& args,
                                                          absl::string_view folder);

// The project's version, as "0.1.0".
absl::string_view Version();

// Every flag of the folder with its default and help, one paragraph each, in order of name.
std::string DescribeFlags(absl::string_view folder);

}  // namespace catserve

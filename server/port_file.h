// Tells scripts which ports the system chose.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace catserve {

// Writes the number alone, in one step: a reader sees the whole file or none. Errors: UNAVAILABLE
// naming the file.
absl::Status WritePortFile(const std::string& path, int port);

}  // namespace catserve

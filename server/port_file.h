// Tells scripts which ports the system chose.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace catserve {

// Writes "listen_port=N" and "metrics_port=N" (0: none), one line each, in one step: a reader sees
// the whole file or none. Errors: UNAVAILABLE naming the file.
absl::Status WritePortFile(const std::string& path, int listen_port, int metrics_port);

}  // namespace catserve

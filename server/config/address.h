// host:port, as flags and the configuration file write it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace catserve {

struct Address {
  std::string host;  // a name or a number; IPv6 without its brackets
  int port = 0;      // 0: the system chooses
};

// Errors: INVALID_ARGUMENT that says how to write one.
absl::StatusOr<Address> ReadAddress(absl::string_view text);

}  // namespace catserve

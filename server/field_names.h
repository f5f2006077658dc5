// How errors name a request's fields: by their path, as the contract spells it.
#pragma once

#include "absl/status/status.h"
#include "google/protobuf/descriptor.h"

namespace catserve {

// Those who refuse a request know a field by its own name ("top_p", "auto.kv_bytes_max"); this puts
// the group's before it ("sampling.top_p", "budget.auto.kv_bytes_max") in the message of an
// INVALID_ARGUMENT, where the name stands first or is no English word. Other statuses stay as they
// are. `request`: the type whose fields are meant.
absl::Status NameFieldsByPath(const google::protobuf::Descriptor& request,
                              const absl::Status& status);

}  // namespace catserve

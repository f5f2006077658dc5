// The id under which a request is found in traces and logs, from W3C Trace Context.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace catserve {

inline constexpr char kTraceparentKey[] = "traceparent";

// The trace id (32 hexadecimal digits) of a `traceparent` header, such as
// "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01". Nothing for whatever the standard does
// not allow: the header is then as good as none.
std::optional<std::string> TraceIdOf(absl::string_view traceparent);

// A new random one.
std::string NewTraceId();

}  // namespace catserve

#include "server/trace_context.h"

#include <algorithm>
#include <cstdint>
#include <random>

#include "absl/strings/str_format.h"

namespace catserve {
namespace {

// version "-" trace-id "-" parent-id "-" flags
constexpr size_t kVersionEnd = 2;
constexpr size_t kTraceEnd = 35;
constexpr size_t kParentEnd = 52;
constexpr size_t kHeaderBytes = 55;
constexpr size_t kHeaderBytesMax = 512;  // later versions may say more

bool IsHex(absl::string_view text) {  // lower case only, says the standard
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsZero(absl::string_view text) { return text.find_first_not_of('0') == text.npos; }

}  // namespace

std::optional<std::string> TraceIdOf(absl::string_view traceparent) {
  if (traceparent.size() < kHeaderBytes || traceparent.size() > kHeaderBytesMax) {
    return std::nullopt;
  }
  for (const size_t dash : {kVersionEnd, kTraceEnd, kParentEnd}) {
    if (traceparent[dash] != '-') return std::nullopt;
  }
  const absl::string_view version = traceparent.substr(0, kVersionEnd);
  const absl::string_view trace = traceparent.substr(3, 32);
  const absl::string_view parent = traceparent.substr(36, 16);
  const absl::string_view flags = traceparent.substr(53, 2);
  if (!IsHex(version) || !IsHex(trace) || !IsHex(parent) || !IsHex(flags)) return std::nullopt;
  if (version == "ff" || IsZero(trace) || IsZero(parent)) return std::nullopt;
  const absl::string_view rest = traceparent.substr(kHeaderBytes);
  if (!rest.empty() && (version == "00" || rest.front() != '-')) return std::nullopt;
  return std::string(trace);
}

std::string NewTraceId() {
  thread_local std::random_device device;
  const auto word = [] { return uint64_t{device()} << 32 | device(); };
  uint64_t high = 0, low = 0;
  while ((high | low) == 0) {  // all zeros is no id
    high = word();
    low = word();
  }
  return absl::StrFormat("%016x%016x", high, low);
}

}  // namespace catserve

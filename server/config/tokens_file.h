// The file that `access.tokens_file` names: who may call, by the hash of a token, and how much.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace catserve {

// Zero: no limit.
struct OwnerLimits {
  int64_t requests_max = 0;  // at once
  int64_t tokens_per_minute_max = 0;

  friend bool operator==(const OwnerLimits&, const OwnerLimits&) = default;
};

struct TokenEntry {
  std::string owner;
  std::string sha256;  // 32 bytes
  OwnerLimits limits;
};

inline constexpr size_t kTokensBytesMax = 1 << 20;
inline constexpr int64_t kOwnerRequestsMax = 1'000'000;
inline constexpr int64_t kOwnerTokensPerMinuteMax = 1'000'000'000'000;

// An owner is named by 1 to 64 characters of [A-Za-z0-9._:@-].
bool IsOwnerName(absl::string_view name);
inline constexpr char kOwnerNameRule[] = "1 to 64 characters of [A-Za-z0-9._:@-]";

// Every hash is there once; entries of one owner have the same limits. Errors: INVALID_ARGUMENT
// "NAME:LINE: what is wrong; allowed: ...". An empty list must be written as [].
absl::StatusOr<std::vector<TokenEntry>> ParseTokens(absl::string_view text,
                                                    const std::string& name);

}  // namespace catserve

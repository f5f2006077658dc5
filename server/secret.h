// Tokens of callers and their hashes.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace catserve {

inline constexpr size_t kSha256Bytes = 32;

// 32 bytes.
std::string Sha256(absl::string_view bytes);

// The same time whatever differs. REQUIRES: both have kSha256Bytes.
bool SameHash(absl::string_view a, absl::string_view b);

// 256 random bits as text that fits into a header, with a prefix that scanners for lost secrets
// can look for. Errors: UNAVAILABLE, if the system gives no randomness.
absl::StatusOr<std::string> MakeToken();

}  // namespace catserve

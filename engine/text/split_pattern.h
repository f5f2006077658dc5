// The regular expressions by which tokenizer files cut text.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace catserve {

// GPT-2's pattern, which byte-level tokenizers use unless they name their own.
inline constexpr std::string_view kGpt2SplitPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Longer patterns are refused; the longest in use have some 400 bytes.
inline constexpr size_t kSplitPatternBytesMax = 4096;

// Files are written for Oniguruma (Ruby syntax), we match with PCRE2. This lets through the common
// part of the two languages, in which every construct means the same, and rewrites \s and \S, which
// differ (PCRE2 counts U+180E as white space). Unimplemented names any other construct and its
// offset: a pattern that would silently mean something else would give wrong tokens.
//
// Let through: literals, | and groups (...) (?:...) (?i:...) (?=...) (?!...), ? * + with ? or +
// after them, {n} {n,} {n,m}, \s \S \d \D \r \n \t \p{..} \P{..} for general categories, escaped
// punctuation, and character classes of these that hold neither nested classes nor &&.
absl::StatusOr<std::string> TranslateSplitPattern(std::string_view pattern);

}  // namespace catserve

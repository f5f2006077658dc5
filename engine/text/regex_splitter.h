// Cuts text by a regular expression: the one place that knows PCRE2.
#pragma once

#include <memory>
#include <string_view>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

struct pcre2_real_code_8;

namespace catserve {

// A compiled split pattern. Immutable and thread-safe.
class RegexSplitter {
 public:
  // Takes a pattern as tokenizer files have it (split_pattern.h). InvalidArgument: not a pattern,
  // or it can match nothing at all. Unimplemented: see TranslateSplitPattern.
  static absl::StatusOr<RegexSplitter> Compile(std::string_view pattern);

  // Receives a piece; a status other than OK ends the split with it.
  using Sink = absl::FunctionRef<absl::Status(std::string_view)>;

  // Hands out the matches and, unless matches_only, what lies between them, in order; pieces are
  // never empty. REQUIRES valid UTF-8 of at most kTextBytesMax. InvalidArgument if matching takes
  // more work or memory than an honest pattern needs.
  absl::Status Split(std::string_view text, bool matches_only, Sink sink) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  using Code = std::unique_ptr<pcre2_real_code_8, Free>;
  explicit RegexSplitter(Code code) : code_(std::move(code)) {}

  Code code_;
};

}  // namespace catserve

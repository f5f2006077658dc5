// Cuts text into the pieces within which tokens are merged.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/regex_splitter.h"
#include "engine/text/tokenizer_spec.h"

namespace catserve {

// More steps than this are refused; files in use have at most five.
inline constexpr size_t kPreTokenizerStepsMax = 16;

// A sequence of steps, each applied to every piece of the one before. Immutable and thread-safe.
class PreTokenizer {
 public:
  // Errors name the field and are RegexSplitter's.
  static absl::StatusOr<PreTokenizer> Build(std::vector<PreTokenizerStep> steps);

  // Hands out the pieces of `text` in order; a piece's bytes live only during the call. Without
  // steps the text is one piece. `at_text_start`: nothing came before `text` in the request.
  // REQUIRES valid UTF-8. Errors: the sink's, and RegexSplitter::Split's.
  absl::Status Split(std::string_view text, bool at_text_start, RegexSplitter::Sink sink) const;

 private:
  absl::Status Run(size_t step, std::string_view piece, bool at_text_start,
                   RegexSplitter::Sink sink) const;

  std::vector<PreTokenizerStep> steps_;
  std::vector<std::optional<RegexSplitter>> splitters_;  // [steps]; none but for kSplit
};

}  // namespace catserve

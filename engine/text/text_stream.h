// The text of one choice of a request: ids in, text out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/text/detokenizer.h"
#include "engine/text/stop_strings.h"
#include "engine/text/tokenizer.h"

namespace catserve {

// Detokenises the ids of one choice and looks for its stop strings. Every text is valid UTF-8.
// Does not judge end-of-text or stop token ids, nor lengths: those are the scheduler's. Not
// thread-safe.
class TextStream {
 public:
  struct Options {
    std::vector<std::string> stops;  // valid UTF-8
    bool include_stop = false;
  };
  struct Output {
    std::string text;
    int matched = -1;  // index into Options::stops; the text ends there
  };

  // `tokenizer` must outlive this object.
  TextStream(const Tokenizer* tokenizer, Options options);

  // The text that became certain with this id. With may_stop false (min_tokens not reached yet) no
  // stop string begins or ends in this id's text. After a match every further id yields nothing.
  Output Push(int32_t id, bool may_stop = true);

  // Ends the stream (length limit, end of text, cancel): all that was held back. It can match: an
  // open character becomes U+FFFD, which a stop string may contain.
  Output Flush();

  // Bytes of the ids pushed so far that no text has been returned for yet.
  size_t held_bytes() const { return detokenizer_.held_bytes() + matcher_.held_bytes(); }

 private:
  IncrementalDetokenizer detokenizer_;
  StopMatcher matcher_;
};

}  // namespace catserve

// A stream of token ids to a stream of text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/text/tokenizer.h"

namespace catserve {

// Turns generated ids into text piece by piece and never emits half a character: every result is
// valid UTF-8, and together the results are ReplaceInvalidUtf8 of all the tokens' bytes. Bytes that
// can no longer become a character are emitted as U+FFFD at once.
//
// It continues a text, so unlike Tokenizer::Decode it keeps a leading space. Special tokens and ids
// that the tokenizer does not know yield nothing. One per stream; not thread-safe.
class IncrementalDetokenizer {
 public:
  // `tokenizer` must outlive this object.
  explicit IncrementalDetokenizer(const Tokenizer* tokenizer);

  // The text that became certain with this id; often empty inside a character.
  std::string Push(int32_t id);

  // Ends the stream: what was held back, as U+FFFD.
  std::string Flush();

  // Bytes of an open character held back; at most 3.
  size_t held_bytes() const { return open_.size(); }

 private:
  const Tokenizer* tokenizer_;
  std::string open_;  // the start of a character
};

}  // namespace catserve

// Finds stop strings in generated text.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace catserve {

// Searches a text that arrives in pieces for several stop strings. Text that may still become part
// of a stop string is held back, at most one byte less than the longest stop string; the rest is
// passed on at once.
//
// The stop string that is complete first wins, for generation can stop there; of those complete
// with the same byte, the longest (it starts first); of equal ones, the first in the list. So where
// one stop string is a prefix of another, the shorter wins. The result depends only on the text,
// not on how it was cut into pieces. Costs O(stop strings) per byte. One per stream; not
// thread-safe.
class StopMatcher {
 public:
  // Empty stop strings never match. For valid text and valid UTF-8 stop strings all cuts fall
  // between characters. With include_stop, the matched stop string is part of the text.
  explicit StopMatcher(std::vector<std::string> stops, bool include_stop);

  struct Output {
    std::string text;
    int matched = -1;  // index of the stop string that matched; the text ends there
  };

  // The text that became certain. After a match, everything further is ignored.
  Output Push(std::string_view piece);

  // As Push, but no stop string may end, or begin, in this piece (min_tokens not reached yet).
  std::string PushLiteral(std::string_view piece);

  // Ends the stream without a match: what was held back.
  std::string Flush();

  size_t held_bytes() const { return held_.size(); }

 private:
  // Knuth, Morris and Pratt's automaton of one stop string.
  struct Pattern {
    std::string text;
    std::vector<size_t> fallback;  // [length]: longest proper border of each prefix
    size_t matched = 0;            // bytes of `text` that the input so far ends with
    bool Advance(char byte);       // true when complete
  };
  Output Finish(int winner);

  std::vector<Pattern> patterns_;
  bool include_stop_;
  bool done_ = false;
  std::string held_;
};

}  // namespace catserve

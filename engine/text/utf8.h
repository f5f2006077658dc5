// UTF-8 at the edges of the service: checking what comes in, and never sending half a character.
//
// "Valid" is the Unicode standard's table 3-7: no overlong forms, no surrogates, nothing above
// U+10FFFF. All functions are pure and thread-safe.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace catserve {

// What stands at the front of a byte string.
struct Utf8Front {
  enum class Kind {
    kCharacter,  // a whole character of `length` bytes
    kOpen,       // `length` bytes (all there are) that more bytes could turn into a character
    kInvalid,    // `length` bytes that no continuation can make valid
  };
  Kind kind;
  size_t length;  // >= 1
};

// REQUIRES: bytes is not empty. An invalid front is the longest start of a character that the next
// byte rules out ("maximal subpart"), so that each becomes one U+FFFD, as in Python and browsers.
Utf8Front ReadUtf8(std::string_view bytes);

// Offset of the first byte that is not part of a whole valid character; nullopt when all are.
std::optional<size_t> FirstInvalidUtf8(std::string_view bytes);

// Length of the longest prefix that does not end inside a character: all of `bytes`, less the at
// most three bytes of a character still open at the end. Invalid bytes are not open: they stay in.
size_t ClosedUtf8Prefix(std::string_view bytes);

// `bytes` with each invalid sequence, an open one at the end included, replaced by U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view bytes);

}  // namespace catserve

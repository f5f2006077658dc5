// GPT-2's byte alphabet: how byte-level vocabularies write bytes as printable characters.
//
// Printable Latin-1 bytes stand for themselves; the other 68, in order, are U+0100 onwards. So a
// space is written U+0120. Pure functions; thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace catserve {

// The character that stands for `byte`, in UTF-8.
std::string ByteSymbol(uint8_t byte);

// The bytes that a token written in the alphabet stands for; nullopt if one of its characters is
// not in the alphabet. `spelling` is valid UTF-8.
std::optional<std::string> BytesOfSpelling(std::string_view spelling);

}  // namespace catserve

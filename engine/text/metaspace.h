// SentencePiece's way to write a space. Pure functions; thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace catserve {

// U+2581, which stands for a space.
inline constexpr std::string_view kMetaspace = "\xE2\x96\x81";

// `text` with every space as kMetaspace, and the other way round.
std::string SpacesToMetaspaces(std::string_view text);
std::string MetaspacesToSpaces(std::string_view text);

}  // namespace catserve

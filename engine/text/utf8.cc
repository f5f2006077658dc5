#include "engine/text/utf8.h"

#include <cstdint>

namespace catserve {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// What a lead byte asks of the bytes after it (Unicode standard, table 3-7).
struct Lead {
  size_t length;  // 0: not a lead byte
  uint8_t second_min = 0x80;
  uint8_t second_max = 0xBF;
};

Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {.length = 1};
  if (byte < 0xC2) return {.length = 0};
  if (byte < 0xE0) return {.length = 2};
  if (byte == 0xE0) return {.length = 3, .second_min = 0xA0};  // no overlong forms
  if (byte == 0xED) return {.length = 3, .second_max = 0x9F};  // no surrogates
  if (byte < 0xF0) return {.length = 3};
  if (byte == 0xF0) return {.length = 4, .second_min = 0x90};  // no overlong forms
  if (byte < 0xF4) return {.length = 4};
  if (byte == 0xF4) return {.length = 4, .second_max = 0x8F};  // at most U+10FFFF
  return {.length = 0};
}

}  // namespace

Utf8Front ReadUtf8(std::string_view bytes) {
  const Lead lead = LeadOf(static_cast<uint8_t>(bytes[0]));
  if (lead.length == 0) return {Utf8Front::Kind::kInvalid, 1};
  for (size_t i = 1; i < lead.length; ++i) {
    if (i == bytes.size()) return {Utf8Front::Kind::kOpen, i};
    const auto byte = static_cast<uint8_t>(bytes[i]);
    const uint8_t low = i == 1 ? lead.second_min : 0x80;
    const uint8_t high = i == 1 ? lead.second_max : 0xBF;
    if (byte < low || byte > high) return {Utf8Front::Kind::kInvalid, i};
  }
  return {Utf8Front::Kind::kCharacter, lead.length};
}

std::optional<size_t> FirstInvalidUtf8(std::string_view bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const Utf8Front front = ReadUtf8(bytes.substr(at));
    if (front.kind != Utf8Front::Kind::kCharacter) return at;
    at += front.length;
  }
  return std::nullopt;
}

size_t ClosedUtf8Prefix(std::string_view bytes) {
  // An open character is at most three bytes long: its lead byte is among the last three.
  for (size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    const size_t at = bytes.size() - back;
    const bool is_continuation = (static_cast<uint8_t>(bytes[at]) & 0xC0) == 0x80;
    if (is_continuation) continue;
    const Utf8Front front = ReadUtf8(bytes.substr(at));
    return front.kind == Utf8Front::Kind::kOpen ? at : bytes.size();
  }
  return bytes.size();
}

std::string ReplaceInvalidUtf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Front front = ReadUtf8(bytes);
    const bool whole = front.kind == Utf8Front::Kind::kCharacter;
    text += whole ? bytes.substr(0, front.length) : kReplacement;
    bytes.remove_prefix(front.length);
  }
  return text;
}

}  // namespace catserve

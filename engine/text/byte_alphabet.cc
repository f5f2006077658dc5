#include "engine/text/byte_alphabet.h"

#include <array>

#include "engine/text/utf8.h"

namespace catserve {
namespace {

constexpr int kSymbols = 0x100 + 68;  // code points 0 up to the last stand-in

struct Alphabet {
  std::array<uint16_t, 256> code_point{};
  std::array<int16_t, kSymbols> byte{};  // by code point; -1: not in the alphabet
};

constexpr bool IsPrintableLatin1(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.byte) byte = -1;
  int stand_in = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const int code_point = IsPrintableLatin1(byte) ? byte : stand_in++;
    alphabet.code_point[byte] = static_cast<uint16_t>(code_point);
    alphabet.byte[code_point] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

std::string ByteSymbol(uint8_t byte) {
  const uint16_t code_point = kAlphabet.code_point[byte];
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xC0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3F))};
}

std::optional<std::string> BytesOfSpelling(std::string_view spelling) {
  std::string bytes;
  bytes.reserve(spelling.size());
  while (!spelling.empty()) {
    const size_t length = ReadUtf8(spelling).length;
    if (length > 2) return std::nullopt;
    const auto lead = static_cast<uint8_t>(spelling[0]);
    const int code_point =
        length == 1 ? lead : (lead & 0x1F) << 6 | (static_cast<uint8_t>(spelling[1]) & 0x3F);
    if (code_point >= kSymbols || kAlphabet.byte[code_point] < 0) return std::nullopt;
    bytes += static_cast<char>(kAlphabet.byte[code_point]);
    spelling.remove_prefix(length);
  }
  return bytes;
}

}  // namespace catserve

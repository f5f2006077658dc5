// Fuzzes everything that reads a tokenizer's files or a user's text. The first byte picks what the
// rest is: a tokenizer.json, a vocab.json, a merges.txt, or a text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/text_stream.h"
#include "engine/text/tokenizer.h"
#include "engine/text/utf8.h"

namespace catserve {
namespace {

using Loaded = absl::StatusOr<std::unique_ptr<Tokenizer>>;

constexpr std::string_view kMerges = "a b\nab c\nl l\n";
constexpr std::string_view kText = "all abc <|endoftext|> \u00E9 \u6F22 \U0001F680 12 it's  \n";

std::string Vocab() {
  std::string json = "{";
  for (int byte = 0; byte < 256; ++byte) {
    const std::string symbol = ByteSymbol(static_cast<uint8_t>(byte));
    const bool escape = symbol == "\"" || symbol == "\\";
    json += std::string(escape ? "\"\\" : "\"") + symbol + "\":" + std::to_string(byte) + ",";
  }
  return json + R"("ab":256,"abc":257,"ll":258,"<|endoftext|>":259})";
}

Loaded Load(uint8_t kind, std::string_view rest) {
  switch (kind) {
    case 0: return Tokenizer::FromTokenizerJson(rest);
    case 1: return Tokenizer::FromVocabAndMerges(rest, "");
    case 2: return Tokenizer::FromVocabAndMerges(Vocab(), rest);
    default: return Tokenizer::FromVocabAndMerges(Vocab(), kMerges);
  }
}

void Require(bool condition) {
  if (!condition) std::abort();
}

// What must hold for every tokenizer that loaded.
void Exercise(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool parse_special : {false, true}) {
    const auto ids = tokenizer.Encode(text, parse_special);
    if (!ids.ok()) continue;
    TextStream stream(&tokenizer, {.stops = {"ab", "\u00E9"}});
    std::string streamed;
    for (const int32_t id : *ids) {
      Require(tokenizer.Valid(id));
      streamed += stream.Push(id).text;
    }
    streamed += stream.Flush().text;
    Require(!FirstInvalidUtf8(streamed));
    tokenizer.Decode(*ids);
  }
}

}  // namespace
}  // namespace catserve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace catserve;
  if (size == 0) return 0;
  const uint8_t kind = data[0] % 4;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Loaded tokenizer = Load(kind, rest);
  Require(kind != 3 || tokenizer.ok());
  if (!tokenizer.ok()) return 0;
  Exercise(**tokenizer, kind == 3 ? rest : kText);
  if (kind != 3) return 0;
  const auto ids = (*tokenizer)->Encode(rest, false);
  Require(!ids.ok() || (*tokenizer)->Decode(*ids) == rest);
  return 0;
}

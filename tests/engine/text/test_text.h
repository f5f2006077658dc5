// Small tokenizers and texts for the tests of engine/text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "engine/text/byte_alphabet.h"
#include "nlohmann/json.hpp"

namespace catserve {

inline std::filesystem::path TestData(const std::string& name) {
  return std::filesystem::path(CATSERVE_SOURCE_DIR) / "tests/data/tokenizers" / name;
}

inline std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A vocab.json of the 256 bytes, id = byte, and `extra` tokens from id 256 on, as spelled.
inline std::string ByteVocab(std::initializer_list<std::string> extra = {}) {
  nlohmann::json vocab;
  for (int byte = 0; byte < 256; ++byte) vocab[ByteSymbol(static_cast<uint8_t>(byte))] = byte;
  int id = 256;
  for (const std::string& token : extra) vocab[token] = id++;
  return vocab.dump();
}

// A tokenizer.json with some of its fields replaced; of the model, only what `fields` names.
inline nlohmann::json WithFields(nlohmann::json document, const nlohmann::json& fields) {
  for (const auto& [name, value] : fields.items()) {
    if (name == "model") {
      document[name].merge_patch(value);
    } else {
      document[name] = value;
    }
  }
  return document;
}

// A character of any length, any plane, now and then a special one.
inline std::string RandomCharacter(std::mt19937& random) {
  constexpr uint32_t kEnds[] = {0x80, 0x800, 0x10000, 0x110000};
  uint32_t point = random() % kEnds[random() % 4];
  if (point >= 0xD800 && point < 0xE000) point = ' ';
  std::string text;
  const auto tail = [&](int shift) { text += static_cast<char>(0x80 | (point >> shift & 0x3F)); };
  if (point < 0x80) return {static_cast<char>(point)};
  if (point < 0x800) {
    text += static_cast<char>(0xC0 | point >> 6);
  } else if (point < 0x10000) {
    text += static_cast<char>(0xE0 | point >> 12);
    tail(6);
  } else {
    text += static_cast<char>(0xF0 | point >> 18);
    tail(12);
    tail(6);
  }
  tail(0);
  return text;
}

}  // namespace catserve

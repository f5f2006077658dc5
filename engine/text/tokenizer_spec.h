// What a tokenizer's files say, in one plain value: the seam between reading files and tokenising.
//
// Nothing in it is checked beyond its form; TokenTable, BpeMerges and PreTokenizer check it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace catserve {

// What the vocabulary's strings are made of.
enum class TokenAlphabet {
  kByteLevel,     // every character stands for one byte (byte_alphabet.h)
  kByteFallback,  // characters as they are, U+2581 for a space, <0xNN> for other bytes
};

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;
  bool normalized = false;  // looked for after normalising, as normalised itself
};

// One step that cuts text into the pieces within which tokens are merged.
struct PreTokenizerStep {
  enum class Kind {
    kSplit,        // by `pattern`
    kPrefixSpace,  // puts a space in front of a piece that does not start with one
    kMetaspace,    // spaces to kMetaspace, one of them in front according to `prepend`
  };
  enum class Prepend { kNever, kFirst, kAlways };
  Kind kind = Kind::kSplit;
  std::string pattern;                // kSplit: a regular expression (split_pattern.h)
  bool matches_only = false;          // kSplit: drop what lies between matches
  Prepend prepend = Prepend::kNever;  // kMetaspace
  bool split = true;                  // kMetaspace: a piece starts at each kMetaspace
};

struct TokenizerSpec {
  TokenAlphabet alphabet = TokenAlphabet::kByteLevel;
  std::vector<std::pair<std::string, int32_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // highest priority first
  bool ignore_merges = false;  // a piece that is a token as a whole is not merged
  std::vector<AddedToken> added;

  bool prepend_metaspace = false;  // normalizer: kMetaspace in front of a non-empty text
  bool replace_spaces = false;     // normalizer: every space to kMetaspace
  std::vector<PreTokenizerStep> steps;

  bool strip_leading_space = false;  // Decode drops one
  std::string bos_token;             // empty: none
  std::string eos_token;             // empty: none
  bool prepend_bos = false;
};

}  // namespace catserve

#include "engine/text/split_pattern.h"

#include <vector>

#include "engine/text/regex_splitter.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace catserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Pieces(std::string_view pattern, std::string_view text,
                                bool matches_only = false) {
  std::vector<std::string> pieces;
  const absl::StatusOr<RegexSplitter> splitter = RegexSplitter::Compile(pattern);
  if (!splitter.ok()) return {"does not compile: " + splitter.status().ToString()};
  const absl::Status status = splitter->Split(text, matches_only, [&](std::string_view piece) {
    pieces.emplace_back(piece);
    return absl::OkStatus();
  });
  if (!status.ok()) pieces.push_back(status.ToString());
  return pieces;
}

TEST(RegexSplitter, Gpt2KeepsOneSpaceWithAWord) {
  EXPECT_THAT(Pieces(kGpt2SplitPattern, "it's  two words 42!\n"),
              ElementsAre("it", "'s", " ", " two", " words", " 42", "!", "\n"));
}

TEST(RegexSplitter, LettersAndSpacesAreUnicode) {
  EXPECT_THAT(Pieces(kGpt2SplitPattern, "\u00FCber \u6F22\u5B57\u00A0\u0663x"),
              ElementsAre("\u00FCber", " \u6F22\u5B57", "\u00A0", "\u0663", "x"));
}

TEST(RegexSplitter, TheMongolianVowelSeparatorIsNoSpace) {
  // PCRE2's own \s would say it is; Oniguruma and Unicode since 6.3 say no.
  EXPECT_THAT(Pieces("\\s+", "a\u180Eb c"), ElementsAre("a\u180Eb", " ", "c"));
}

TEST(RegexSplitter, MatchesOnlyDropsTheRest) {
  EXPECT_THAT(Pieces("b+", "abba"), ElementsAre("a", "bb", "a"));
  EXPECT_THAT(Pieces("b+", "abba", true), ElementsAre("bb"));
}

TEST(RegexSplitter, AMillionSpacesAreNotTooCostly) {
  const std::string spaces(1'000'000, ' ');
  for (const auto pattern :
       {std::string_view(kGpt2SplitPattern), std::string_view("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")}) {
    EXPECT_EQ(Pieces(pattern, spaces).size(), 1u);
    EXPECT_EQ(Pieces(pattern, spaces + "x").back().back(), 'x');
  }
}

TEST(RegexSplitter, AnExplosivePatternEndsWithAnError) {
  const std::string text = std::string(40, 'a') + "!";
  EXPECT_THAT(Pieces("(?:a|aa|a+)+(?:b|c)", text).back(), HasSubstr("too costly"));
}

TEST(SplitPattern, WhatMeansTheSameInBothLanguagesPasses) {
  for (const char* pattern :
       {"(?i:'s|'t)|[^\\r\\n\\p{L}]?\\p{L}+|\\p{N}{1,3}", "[a-z\\-\\]\\p{M}]++", "a(?=b)|(c|d)e*?",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+", "x{2}y{3,}", "[\\s-]",
        "[\u4E00-\u9FA5]+"}) {
    EXPECT_TRUE(TranslateSplitPattern(pattern).ok()) << TranslateSplitPattern(pattern).status();
  }
}

TEST(SplitPattern, WhatMayMeanSomethingElseIsRefusedByName) {
  for (const char* pattern :
       {"^a",      "a$",      "a.",      "\\w+",    "a\\b",         "\\h",    "\\v",
        "(?i)a",   "(?<=a)b", "(?<n>a)", "(?>a)",   "(*UTF)a",      "[a&&b]", "[a[b]]",
        "[]a]",    "[\\s-z]", "a{1,3}+", "a{1,3}?", "a{,3}",        "a{x}",   "\\p{Han}",
        "\\p{^L}", "\\pL",    "(a)\\1",  "\\x41",   "(?i:\\p{Lu})", "[a",     "a\\"}) {
    EXPECT_TRUE(absl::IsUnimplemented(TranslateSplitPattern(pattern).status())) << pattern;
  }
  EXPECT_THAT(std::string(TranslateSplitPattern("ab\\w").status().message()),
              HasSubstr("at byte 2"));
}

TEST(SplitPattern, WhatIsNoPatternIsInvalid) {
  for (const std::string& pattern :
       {std::string("a("), std::string("a)"), std::string("*"), std::string("\xFF"),
        std::string("a*"), std::string("a||b"), std::string(5000, 'a'), std::string(100, '(')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(RegexSplitter::Compile(pattern).status()))
        << RegexSplitter::Compile(pattern).status();
  }
}

}  // namespace
}  // namespace catserve

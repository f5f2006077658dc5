#include "engine/text/utf8.h"

#include <random>

#include "gtest/gtest.h"
#include "tests/engine/text/test_text.h"

namespace catserve {
namespace {

constexpr char kCrab[] = "\xF0\x9F\xA6\x80";

TEST(Utf8, EveryLengthOfCharacterIsValid) {
  EXPECT_EQ(FirstInvalidUtf8(""), std::nullopt);
  EXPECT_EQ(FirstInvalidUtf8("a\xC3\xA9\xE6\xBC\xA2\xF0\x9F\xA6\x80"), std::nullopt);
  EXPECT_EQ(FirstInvalidUtf8(std::string_view("\0", 1)), std::nullopt);
  EXPECT_EQ(FirstInvalidUtf8("\xF4\x8F\xBF\xBF"), std::nullopt);  // U+10FFFF
}

TEST(Utf8, TheFirstBadByteIsNamed) {
  EXPECT_EQ(FirstInvalidUtf8("ab\xFF"), 2u);
  EXPECT_EQ(FirstInvalidUtf8("\x80"), 0u);                 // continuation without a lead
  EXPECT_EQ(FirstInvalidUtf8("a\xC0\xAF"), 1u);            // overlong
  EXPECT_EQ(FirstInvalidUtf8("ab\xED\xA0\x80"), 2u);       // surrogate
  EXPECT_EQ(FirstInvalidUtf8("abc\xF4\x90\x80\x80"), 3u);  // above U+10FFFF
  EXPECT_EQ(FirstInvalidUtf8("abcd\xE6\xBC"), 4u);         // cut short
}

TEST(Utf8, OnlyAnOpenCharacterAtTheEndIsCutOff) {
  const std::string text = std::string("a") + kCrab;
  EXPECT_EQ(ClosedUtf8Prefix(text), 5u);
  for (size_t length = 1; length < 5; ++length) {
    EXPECT_EQ(ClosedUtf8Prefix(text.substr(0, length)), 1u) << length;
  }
  EXPECT_EQ(ClosedUtf8Prefix("a\x80\x80\x80\x80"), 5u);  // never a character: nothing to wait for
  EXPECT_EQ(ClosedUtf8Prefix("\xE0\x80"), 2u);           // E0 80 cannot become one either
  EXPECT_EQ(ClosedUtf8Prefix(""), 0u);
}

TEST(Utf8, EachImpossibleSequenceBecomesOneReplacement) {
  EXPECT_EQ(ReplaceInvalidUtf8("ok"), "ok");
  EXPECT_EQ(ReplaceInvalidUtf8("a\xFF"
                               "b"),
            "a\uFFFDb");
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x9F\xA6"
                               "b"),
            "\uFFFDb");                                       // one start, one replacement
  EXPECT_EQ(ReplaceInvalidUtf8("\xC0\xAF"), "\uFFFD\uFFFD");  // C0 starts nothing
  EXPECT_EQ(ReplaceInvalidUtf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8("a\xE6\xBC"), "a\uFFFD");  // open at the end
}

TEST(Utf8, RandomTextIsValidAndRandomBytesBecomeValid) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 20; ++i) text += RandomCharacter(random);
    ASSERT_EQ(FirstInvalidUtf8(text), std::nullopt);
    ASSERT_EQ(ReplaceInvalidUtf8(text), text);
    for (int i = 0; i < 5; ++i) text[random() % text.size()] = static_cast<char>(random());
    ASSERT_EQ(FirstInvalidUtf8(ReplaceInvalidUtf8(text)), std::nullopt);
    ASSERT_LE(text.size() - ClosedUtf8Prefix(text), 3u);
  }
}

}  // namespace
}  // namespace catserve

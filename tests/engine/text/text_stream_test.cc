#include "engine/text/text_stream.h"

#include "engine/text/utf8.h"
#include "gtest/gtest.h"
#include "tests/engine/text/test_text.h"

namespace catserve {
namespace {

constexpr int32_t kEnd = 256;

// One token per byte, id = byte, and one special token.
const Tokenizer& Bytes() {
  static const Tokenizer* const kTokenizer =
      Tokenizer::FromVocabAndMerges(ByteVocab({"<|endoftext|>"}), "")->release();
  return *kTokenizer;
}

std::vector<int32_t> Ids(std::string_view bytes) {
  std::vector<int32_t> ids;
  for (const char byte : bytes) ids.push_back(static_cast<uint8_t>(byte));
  return ids;
}

TEST(IncrementalDetokenizer, AnEmojiOfFourTokensComesWhole) {
  IncrementalDetokenizer detokenizer(&Bytes());
  EXPECT_EQ(detokenizer.Push('a'), "a");
  EXPECT_EQ(detokenizer.Push(0xF0), "");
  EXPECT_EQ(detokenizer.Push(0x9F), "");
  EXPECT_EQ(detokenizer.Push(0xA6), "");
  EXPECT_EQ(detokenizer.held_bytes(), 3u);
  EXPECT_EQ(detokenizer.Push(0x80), "\U0001F980");
  EXPECT_EQ(detokenizer.held_bytes(), 0u);
  EXPECT_EQ(detokenizer.Flush(), "");
}

TEST(IncrementalDetokenizer, BytesThatCannotBecomeACharacterAreReplacedAtOnce) {
  IncrementalDetokenizer detokenizer(&Bytes());
  EXPECT_EQ(detokenizer.Push(0xFF), "\uFFFD");
  EXPECT_EQ(detokenizer.Push(0x80), "\uFFFD");
  EXPECT_EQ(detokenizer.Push(0xE6), "");
  EXPECT_EQ(detokenizer.Push('x'), "\uFFFDx");
  EXPECT_EQ(detokenizer.Push(0xE6), "");
  EXPECT_EQ(detokenizer.Push(0xE6), "\uFFFD");  // the second may still become one
}

TEST(IncrementalDetokenizer, FlushReplacesWhatStayedOpen) {
  IncrementalDetokenizer detokenizer(&Bytes());
  EXPECT_EQ(detokenizer.Push(0xF0), "");
  EXPECT_EQ(detokenizer.Push(0x9F), "");
  EXPECT_EQ(detokenizer.Flush(), "\uFFFD");
  EXPECT_EQ(detokenizer.Flush(), "");
}

TEST(IncrementalDetokenizer, SpecialAndUnknownIdsYieldNothing) {
  IncrementalDetokenizer detokenizer(&Bytes());
  EXPECT_EQ(detokenizer.Push(0xC3), "");
  EXPECT_EQ(detokenizer.Push(kEnd), "");
  EXPECT_EQ(detokenizer.Push(-1), "");
  EXPECT_EQ(detokenizer.Push(100'000), "");
  EXPECT_EQ(detokenizer.Push(0xA9), "\u00E9");
}

TEST(IncrementalDetokenizer, AContinuationKeepsItsLeadingSpace) {
  const auto tokenizer = Tokenizer::Load(TestData("bytefallback"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto ids = (*tokenizer)->Encode("the text", false);
  IncrementalDetokenizer detokenizer(tokenizer->get());
  std::string text;
  for (const int32_t id : *ids) text += detokenizer.Push(id);
  EXPECT_EQ(text, " the text");
  EXPECT_EQ((*tokenizer)->Decode(*ids), "the text");
}

TEST(IncrementalDetokenizer, PiecesAddUpToTheWholeForAnyBytes) {
  std::mt19937 random(6);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    for (int i = 0; i < 12; ++i) bytes += RandomCharacter(random);
    for (int i = 0; i < 4; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    IncrementalDetokenizer detokenizer(&Bytes());
    std::string text;
    for (const int32_t id : Ids(bytes)) {
      const std::string piece = detokenizer.Push(id);
      ASSERT_EQ(FirstInvalidUtf8(piece), std::nullopt);
      ASSERT_LE(detokenizer.held_bytes(), 3u);
      text += piece;
    }
    text += detokenizer.Flush();
    ASSERT_EQ(text, ReplaceInvalidUtf8(bytes));
  }
}

TEST(TextStream, StopsInTheMiddleOfATokensText) {
  TextStream stream(&Bytes(), {.stops = {"zz", "\n\n"}});
  std::string text;
  int matched = -1;
  for (const int32_t id : Ids("Hi.\n\nmore")) {
    const TextStream::Output output = stream.Push(id);
    text += output.text;
    if (output.matched >= 0) matched = output.matched;
  }
  EXPECT_EQ(text, "Hi.");
  EXPECT_EQ(matched, 1);
  EXPECT_EQ(stream.Flush().text, "");
}

TEST(TextStream, CountsWhatBothStagesHoldBack) {
  TextStream stream(&Bytes(), {.stops = {"a\u00E9!"}});
  EXPECT_EQ(stream.Push('a').text, "");
  EXPECT_EQ(stream.Push(0xC3).text, "");
  EXPECT_EQ(stream.held_bytes(), 2u);
  EXPECT_EQ(stream.Push(0xA9).text, "");
  EXPECT_EQ(stream.held_bytes(), 3u);
  EXPECT_EQ(stream.Push('?').text, "a\u00E9?");
  EXPECT_EQ(stream.held_bytes(), 0u);
}

TEST(TextStream, AMultiByteStopStringMatchesAcrossItsByteTokens) {
  TextStream stream(&Bytes(), {.stops = {"\U0001F980"}, .include_stop = true});
  std::string text;
  for (const int32_t id : Ids("ok \U0001F980 no")) text += stream.Push(id).text;
  EXPECT_EQ(text, "ok \U0001F980");
}

TEST(TextStream, FlushGivesTheHeldTextOfAnUnfinishedStopString) {
  TextStream stream(&Bytes(), {.stops = {"END"}});
  for (const int32_t id : Ids("xEN")) stream.Push(id);
  const TextStream::Output output = stream.Flush();
  EXPECT_EQ(output.text, "EN");
  EXPECT_EQ(output.matched, -1);
  EXPECT_EQ(stream.held_bytes(), 0u);
}

TEST(TextStream, BeforeMinTokensNoStopStringCounts) {
  TextStream stream(&Bytes(), {.stops = {"."}});
  EXPECT_EQ(stream.Push('.', false).text, ".");
  EXPECT_EQ(stream.Push('a', true).text, "a");
  EXPECT_EQ(stream.Push('.', true).matched, 0);
}

}  // namespace
}  // namespace catserve

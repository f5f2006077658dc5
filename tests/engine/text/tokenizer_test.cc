#include "engine/text/tokenizer.h"

#include <chrono>
#include <numeric>
#include <thread>

#include "engine/text/utf8.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/text/test_text.h"

namespace catserve {
namespace {

using ::nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const Tokenizer& Gpt2() {
  static const Tokenizer* const kTokenizer = Tokenizer::Load(TestData("gpt2"))->release();
  return *kTokenizer;
}

std::vector<int32_t> Encoded(const Tokenizer& tokenizer, std::string_view text,
                             bool parse_special = false) {
  const auto ids = tokenizer.Encode(text, parse_special);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.value_or(std::vector<int32_t>{});
}

TEST(Gpt2Tokenizer, ReproducesEveryReferenceCase) {
  const json cases = json::parse(ReadAll(TestData("gpt2") / "cases.json"));
  ASSERT_GE(cases.size(), 20u);
  for (const json& item : cases) {
    const auto text = item["text"].get<std::string>();
    const auto ids = item["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(Encoded(Gpt2(), text), ids) << text;
    EXPECT_EQ(Gpt2().Decode(ids), text);
  }
}

TEST(Gpt2Tokenizer, KnowsItsSizeAndItsEndOfText) {
  EXPECT_EQ(Gpt2().info().vocab_size, 50257);
  EXPECT_EQ(Gpt2().info().eos_id, 50256);
  EXPECT_EQ(Gpt2().info().bos_id, -1);
  EXPECT_FALSE(Gpt2().info().prepend_bos);
  EXPECT_TRUE(Gpt2().IsSpecial(50256));
  EXPECT_FALSE(Gpt2().IsSpecial(0));
  EXPECT_EQ(Gpt2().TokenBytes(50256), "<|endoftext|>");
}

TEST(Gpt2Tokenizer, SpecialTokensInTextAreLiteralUnlessAskedFor) {
  const std::string text = "a<|endoftext|>b";
  EXPECT_THAT(Encoded(Gpt2(), text, true), ElementsAre(64, 50256, 65));
  const std::vector<int32_t> literal = Encoded(Gpt2(), text, false);
  EXPECT_THAT(literal, testing::Not(testing::Contains(50256)));
  EXPECT_EQ(Gpt2().Decode(literal), text);
}

TEST(Gpt2Tokenizer, DecodingSkipsSpecialAndUnknownIds) {
  EXPECT_EQ(Gpt2().Decode(std::vector<int32_t>{64, 50256, -1, 50257, 65}), "ab");
  EXPECT_EQ(Gpt2().TokenBytes(-1), "");
  EXPECT_FALSE(Gpt2().Valid(50257));
}

TEST(Gpt2Tokenizer, EveryByteHasAToken) {
  std::string bytes(256, '\0');
  std::iota(bytes.begin(), bytes.end(), 0);
  std::string decoded;
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < Gpt2().info().vocab_size; ++id) {
    if (Gpt2().TokenBytes(id).size() == 1) ids.push_back(id);
  }
  ASSERT_EQ(ids.size(), 256u);
  decoded = Gpt2().Decode(ids);
  std::sort(decoded.begin(), decoded.end(),
            [](char a, char b) { return static_cast<uint8_t>(a) < static_cast<uint8_t>(b); });
  EXPECT_EQ(decoded, bytes);
}

TEST(Gpt2Tokenizer, RandomTextComesBack) {
  std::mt19937 random(4);
  for (int round = 0; round < 1000; ++round) {
    std::string text;
    for (int i = 0; i < 30; ++i) text += RandomCharacter(random);
    ASSERT_EQ(Gpt2().Decode(Encoded(Gpt2(), text)), text);
  }
}

TEST(Gpt2Tokenizer, TextThatIsNotUtf8IsRefusedWithItsPlace) {
  const auto ids = Gpt2().Encode("abc\xFF", false);
  ASSERT_TRUE(absl::IsInvalidArgument(ids.status()));
  EXPECT_THAT(std::string(ids.status().message()), HasSubstr("byte 3"));
}

TEST(Gpt2Tokenizer, TooLongATextIsRefused) {
  const std::string text(kTextBytesMax + 1, 'a');
  EXPECT_TRUE(absl::IsInvalidArgument(Gpt2().Encode(text, false).status()));
}

// With quadratic merging each of these would take many minutes; the bound leaves room for
// sanitizers on a busy machine.
TEST(Gpt2Tokenizer, AHugePieceTakesNoQuadraticTime) {
  for (const char* unit : {"a", " ", "!", "\u00E9", "ab"}) {
    std::string text;
    while (text.size() < (size_t{1} << 18)) text += unit;
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(Gpt2().Decode(Encoded(Gpt2(), text)), text);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << unit;
  }
}

TEST(Gpt2Tokenizer, ThreadsShareOneTokenizer) {
  const std::vector<int32_t> expected = Encoded(Gpt2(), "Hello, world! It's 2025.");
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        EXPECT_EQ(Encoded(Gpt2(), "Hello, world! It's 2025."), expected);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Each variant replaces some fields of the file; its cases come from the library that defined the
// format (tools/make_tokenizer_fixtures.py).
class TokenizerJson : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerJson, AgreesWithTheReferenceInEveryVariant) {
  const json document = json::parse(ReadAll(TestData(GetParam()) / "tokenizer.json"));
  const json variants = json::parse(ReadAll(TestData(GetParam()) / "cases.json"));
  ASSERT_GE(variants.size(), 8u);
  for (const json& variant : variants) {
    SCOPED_TRACE(variant["name"].get<std::string>());
    const json changed = WithFields(document, variant["fields"]);
    const auto tokenizer = Tokenizer::FromTokenizerJson(changed.dump());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    ASSERT_GE(variant["cases"].size(), 20u);
    for (const json& item : variant["cases"]) {
      const auto text = item["text"].get<std::string>();
      const auto ids = item["ids"].get<std::vector<int32_t>>();
      EXPECT_EQ(Encoded(**tokenizer, text, item["parse_special"].get<bool>()), ids) << text;
      EXPECT_EQ((*tokenizer)->Decode(ids), item["decoded"].get<std::string>()) << text;
    }
  }
}

TEST_P(TokenizerJson, RandomTextComesBack) {
  const auto tokenizer = Tokenizer::Load(TestData(GetParam()));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::mt19937 random(5);
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (int i = 0; i < 30; ++i) text += RandomCharacter(random);
    ASSERT_EQ((*tokenizer)->Decode(Encoded(**tokenizer, text)), text);
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerJson, testing::Values("bytelevel", "bytefallback"),
                         [](const auto& info) { return std::string(info.param); });

TEST(ByteFallbackTokenizer, AllByteTokensDecodeToAllBytes) {
  const auto tokenizer = Tokenizer::Load(TestData("bytefallback"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::vector<int32_t> ids(256);
  std::iota(ids.begin(), ids.end(), 3);  // <0x00> stands after <unk>, <s> and </s>
  std::string bytes(256, '\0');
  std::iota(bytes.begin(), bytes.end(), 0);
  EXPECT_EQ((*tokenizer)->Decode(ids), bytes);
}

TEST(ByteFallbackTokenizer, TheTemplateNamesTheBosToken) {
  const auto tokenizer = Tokenizer::Load(TestData("bytefallback"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->info().bos_id, 1);
  EXPECT_EQ((*tokenizer)->info().eos_id, 2);
  EXPECT_TRUE((*tokenizer)->info().prepend_bos);
}

TEST(ByteFallbackTokenizer, AMegabyteIsOnePieceAndStillFast) {
  const auto tokenizer = Tokenizer::Load(TestData("bytefallback"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::string text;
  while (text.size() < (size_t{1} << 20)) text += "the text ";
  EXPECT_EQ((*tokenizer)->Decode(Encoded(**tokenizer, text)), text);
}

}  // namespace
}  // namespace catserve

// Tokenizer files are untrusted: whatever is in them, loading ends with a tokenizer or with a
// status that names the file and the field.
#include "engine/text/tokenizer_files.h"

#include <random>

#include "engine/text/added_tokens.h"
#include "engine/text/json_reader.h"
#include "engine/text/message.h"
#include "engine/text/tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/text/test_text.h"

namespace catserve {
namespace {

using ::nlohmann::json;
using ::testing::HasSubstr;

json Document(const std::string& kind) {
  return json::parse(ReadAll(TestData(kind) / "tokenizer.json"));
}

struct Damage {
  std::string fields;  // of the file, replaced: see WithFields
  absl::StatusCode code;
  std::string message;
};

void ExpectRefused(const std::string& kind, const std::vector<Damage>& damages) {
  for (const Damage& damage : damages) {
    const json document = WithFields(Document(kind), json::parse(damage.fields));
    const absl::Status status = Tokenizer::FromTokenizerJson(document.dump()).status();
    EXPECT_EQ(status.code(), damage.code) << damage.fields << "\n" << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json: " + damage.message));
  }
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

TEST(TokenizerFiles, WhatWeDoNotDoIsRefusedByTheFieldsName) {
  ExpectRefused(
      "bytelevel",
      {{R"({"model": {"type": "Unigram"}})", kUnimplemented, "model.type: \"Unigram\""},
       {R"({"model": {"dropout": 0.1}})", kUnimplemented, "model.dropout"},
       {R"({"model": {"end_of_word_suffix": "</w>"}})", kUnimplemented, "model.end_of_word_suffix"},
       {R"({"model": {"new_rule": true}})", kUnimplemented, "model: the field \"new_rule\""},
       {R"({"novelty": 1})", kUnimplemented, "the file: the field \"novelty\""},
       {R"({"normalizer": {"type": "NFC"}})", kUnimplemented, "normalizer: \"NFC\""},
       {R"({"pre_tokenizer": {"type": "Whitespace"}})", kUnimplemented, "pre_tokenizer: "},
       {R"({"pre_tokenizer": null})", kUnimplemented, "pre_tokenizer: "},
       {R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"},
            {"type": "ByteLevel"}]}})",
        kUnimplemented, "pre_tokenizer.pretokenizers[0]: "},
       {R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern":
            {"String": " "}, "behavior": "Isolated"}, {"type": "ByteLevel"}]}})",
        kUnimplemented, "pre_tokenizer.pretokenizers[0].pattern: "},
       {R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern":
            {"Regex": "\\w"}, "behavior": "Isolated"}, {"type": "ByteLevel"}]}})",
        kUnimplemented, "pre_tokenizer: pattern: this escape at byte 0"},
       {R"({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern":
            {"Regex": " "}, "behavior": "MergedWithNext"}, {"type": "ByteLevel"}]}})",
        kUnimplemented, "pre_tokenizer.pretokenizers[0].behavior: "},
       {R"({"decoder": {"type": "WordPiece"}})", kUnimplemented, "decoder: "},
       {R"({"post_processor": {"type": "BertProcessing"}})", kUnimplemented, "post_processor: "},
       {R"({"added_tokens": [{"id": 900, "content": "x", "lstrip": true}]})", kUnimplemented,
        "added_tokens[0].lstrip"}});
  ExpectRefused(
      "bytefallback",
      {{R"({"normalizer": {"type": "NFKC"}})", kUnimplemented, "normalizer: "},
       {R"({"normalizer": {"type": "Prepend", "prepend": "_"}})", kUnimplemented,
        "normalizer.prepend: "},
       {R"({"pre_tokenizer": {"type": "ByteLevel"}})", kUnimplemented, "pre_tokenizer: "},
       {R"({"decoder": null})", kUnimplemented, "decoder: "},
       {R"({"decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}]}})", kUnimplemented,
        "decoder: "},
       {R"({"model": {"byte_fallback": false}})", kUnimplemented, "normalizer.normalizers[0]: "}});
}

TEST(TokenizerFiles, DamageIsNamed) {
  ExpectRefused(
      "bytelevel",
      {{R"({"model": null})", kInvalid, "model: must be an object"},
       {R"({"model": {"type": 7}})", kInvalid, "model.type: must be a string"},
       {R"({"model": {"ignore_merges": "yes"}})", kInvalid, "model.ignore_merges: must be"},
       {R"({"model": {"vocab": []}})", kInvalid, "model.vocab: must be an object"},
       {R"({"model": {"vocab": {"!": "zero"}}})", kInvalid, "model.vocab: the id of \"!\""},
       {R"({"model": {"vocab": {"!": -1}}})", kInvalid, "model.vocab: the id of \"!\""},
       {R"({"model": {"vocab": {"!": 1.5}}})", kInvalid, "model.vocab: the id of \"!\""},
       {R"({"model": {"vocab": {"!": 18446744073709551615}}})", kInvalid, "model.vocab: the id"},
       {R"({"model": {"vocab": {"!": 1}}})", kInvalid, "model.vocab: id 1 belongs to both"},
       {R"({"model": {"vocab": {"!": null}}})", kInvalid, "model.vocab: no token \"!\""},
       {R"({"model": {"merges": {}}})", kInvalid, "model.merges: must be a list"},
       {R"({"model": {"merges": [["a"]]}})", kInvalid, "model.merges: entry 0 must be"},
       {R"({"model": {"merges": ["a b c"]}})", kInvalid, "model.merges: entry 0 must be"},
       {R"({"model": {"merges": ["! zebra"]}})", kInvalid, "model.merges[0]: \"zebra\" is not"},
       {R"({"added_tokens": {}})", kInvalid, "added_tokens: must be a list"},
       {R"({"added_tokens": [7]})", kInvalid, "added_tokens[0]: must be an object"},
       {R"({"added_tokens": [{"id": 900}]})", kInvalid, "added_tokens[0].content: must be"},
       {R"({"added_tokens": [{"id": 900, "content": ""}]})", kInvalid,
        "added_tokens[0].content: must have"},
       {R"({"added_tokens": [{"id": 1073741824, "content": "x"}]})", kInvalid,
        "added_tokens: id 1073741824 of \"x\""},
       {R"({"added_tokens": [{"id": 0, "content": "new"}]})", kInvalid,
        "added_tokens[0]: \"new\" has the id of"},
       {R"({"added_tokens": [{"id": 900, "content": "new"}, {"id": 901, "content": "new"}]})",
        kInvalid, "added_tokens[1]: \"new\" has id 901 here and 900 elsewhere"}});
}

TEST(TokenizerFiles, WhatIsNoJsonIsRefusedWithItsPlace) {
  const auto message = [](std::string_view text) {
    return std::string(Tokenizer::FromTokenizerJson(text).status().message());
  };
  EXPECT_THAT(message(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(message("{\"a\": tru}"), HasSubstr("not valid JSON at byte 10"));
  EXPECT_THAT(message("{\"a\": \"\xFF\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(message("1e999"), HasSubstr("out of range"));
  EXPECT_THAT(message("[]"), HasSubstr("must be an object"));
}

TEST(TokenizerFiles, DeepNestingAndManyValuesCostNothing) {
  const auto message = [](const std::string& text) {
    return std::string(Tokenizer::FromTokenizerJson(text).status().message());
  };
  EXPECT_THAT(message(std::string(1'000'000, '[')), HasSubstr("nested deeper than 32"));
  std::string many = "[0";
  for (size_t i = 0; i < kJsonValuesMax; ++i) many += ",0";
  EXPECT_THAT(message(many + "]"), HasSubstr("more than"));
  EXPECT_THAT(message(std::string(kJsonBytesMax + 1, ' ')), HasSubstr("at most"));
  EXPECT_THAT(message("{\"" + std::string(1000, '[') + "\":\"\\\"[\"}"), HasSubstr("not known"));
}

TEST(TokenizerFiles, MergesTextNamesTheLine) {
  const auto message = [](std::string_view merges) {
    return std::string(Tokenizer::FromVocabAndMerges(ByteVocab({"ab"}), merges).status().message());
  };
  EXPECT_EQ(message("#version: 0.2\na b\n"), "");
  EXPECT_EQ(message("a b\r\n"), "");
  EXPECT_THAT(message("#version: 0.2\nab\n"), HasSubstr("merges.txt: line 2 must be two"));
  EXPECT_THAT(message("a b\na b c"), HasSubstr("merges.txt: line 2 must be two"));
  EXPECT_THAT(message("b a"), HasSubstr("\"ba\" is not in the vocabulary"));
  EXPECT_THAT(message("a \xFF"), HasSubstr("\"\\xff\" is not in the vocabulary"));
  EXPECT_THAT(message("a b\na b"), HasSubstr("\"ab\" is merged twice"));
  const absl::Status status = Tokenizer::FromVocabAndMerges("{\"a\": 0}", "").status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("no token"));
  EXPECT_THAT(std::string(Tokenizer::FromVocabAndMerges("[1]", "").status().message()),
              HasSubstr("vocab.json: must be an object"));
}

class ModelDirectory : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::path(testing::TempDir()) /
                 testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  void Write(const std::string& name, const std::string& content) const {
    std::ofstream(directory_ / name, std::ios::binary) << content;
  }
  std::string LoadMessage() const {
    return std::string(Tokenizer::Load(directory_).status().message());
  }

  std::filesystem::path directory_;
};

TEST_F(ModelDirectory, WithoutATokenizerIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(Tokenizer::Load(directory_).status()));
  EXPECT_TRUE(absl::IsNotFound(Tokenizer::Load(directory_ / "absent").status()));
  Write("vocab.json", ByteVocab());
  EXPECT_TRUE(absl::IsNotFound(Tokenizer::Load(directory_).status()));
  Write("merges.txt", "");
  EXPECT_TRUE(Tokenizer::Load(directory_).ok()) << LoadMessage();
}

TEST_F(ModelDirectory, TokenizerJsonGoesBeforeVocabAndMerges) {
  Write("vocab.json", "damaged");
  Write("merges.txt", "damaged");
  Write("tokenizer.json", Document("bytelevel").dump());
  EXPECT_TRUE(Tokenizer::Load(directory_).ok()) << LoadMessage();
}

TEST_F(ModelDirectory, ErrorsNameTheFile) {
  Write("tokenizer.json", "{");
  EXPECT_THAT(LoadMessage(),
              HasSubstr((directory_ / "tokenizer.json").string() + ": not valid JSON"));
  std::filesystem::remove(directory_ / "tokenizer.json");
  std::filesystem::create_directory(directory_ / "tokenizer.json");
  EXPECT_THAT(LoadMessage(), HasSubstr("tokenizer.json: not a regular file"));
}

TEST_F(ModelDirectory, TokenizerConfigNamesBosAndEos) {
  Write("vocab.json", ByteVocab({"<bos>", "<stop>"}));
  Write("merges.txt", "");
  EXPECT_EQ((*Tokenizer::Load(directory_))->info().eos_id, -1);
  Write("tokenizer_config.json",
        R"({"bos_token": "<bos>", "eos_token": {"content": "<stop>"}, "add_bos_token": true})");
  const auto tokenizer = Tokenizer::Load(directory_);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->info().bos_id, 256);
  EXPECT_EQ((*tokenizer)->info().eos_id, 257);
  EXPECT_TRUE((*tokenizer)->info().prepend_bos);
  Write("tokenizer_config.json", R"({"eos_token": "<gone>"})");
  EXPECT_THAT(LoadMessage(), HasSubstr("\"<gone>\" is not in the vocabulary"));
  Write("tokenizer_config.json", R"({"eos_token": 7})");
  EXPECT_THAT(LoadMessage(), HasSubstr("tokenizer_config.json: eos_token: must be a string"));
}

// Not the fuzzer, but what every build runs: a file with bytes changed must never crash.
TEST(TokenizerFiles, RandomDamageNeverCrashes) {
  std::mt19937 random(7);
  for (const std::string kind : {"bytelevel", "bytefallback"}) {
    const std::string whole = Document(kind).dump();
    for (int round = 0; round < 60; ++round) {
      std::string text = whole;
      const int changes = 1 + static_cast<int>(random() % 3);
      for (int i = 0; i < changes; ++i) {
        constexpr std::string_view kBytes = "0123456789{}[]\",:-tfn\\ ";
        text[random() % text.size()] = kBytes[random() % kBytes.size()];
      }
      const auto tokenizer = Tokenizer::FromTokenizerJson(text);
      if (!tokenizer.ok()) continue;
      const auto ids = (*tokenizer)->Encode("Hello, world \u00E9 <|endoftext|> <s>", true);
      if (ids.ok()) (*tokenizer)->Decode(*ids);
    }
  }
}

// Training began every sequence with it; the server puts it before a text unless told not to.
TEST(TokenizerFiles, TheShippedModelsBeginAsTheyWereTrained) {
  for (const char* model : {"models/text", "models/text-dense"}) {
    const auto tokenizer = Tokenizer::Load(model);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    const auto begin = (*tokenizer)->Encode("<|endoftext|>", true);
    EXPECT_EQ(*begin, std::vector<int32_t>{(*tokenizer)->info().bos_id}) << model;
  }
}

TEST(TokenizerFiles, ALargeVocabularyLoadsFast) {
  json vocab = json::parse(ByteVocab());
  std::string merges;
  // 128k tokens: the bytes' pairs, and those pairs' pairs with a letter.
  int id = 256;
  std::vector<std::string> symbols;
  for (int byte = 0; byte < 256; ++byte) symbols.push_back(ByteSymbol(static_cast<uint8_t>(byte)));
  for (const std::string& left : symbols) {
    for (const std::string& right : symbols) {
      vocab[left + right] = id++;
      merges += left + " " + right + "\n";
      vocab[left + right + "a"] = id++;
      merges += left + right + " a\n";
    }
  }
  // "aaa" and the like arise twice; the later id stays, which leaves holes. That is fine.
  const auto tokenizer = Tokenizer::FromVocabAndMerges(vocab.dump(), merges);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_GT((*tokenizer)->info().vocab_size, 128'000);
  EXPECT_EQ((*tokenizer)->Encode("xya", false)->size(), 1u);
}

TEST(AddedTokens, TheLongestAtTheLeftmostPlaceWins) {
  AddedTokenMatcher matcher;
  matcher.Add("<a>", 1);
  matcher.Add("<a><b>", 2);
  matcher.Add("b>x", 3);
  std::string parts;
  matcher.Split(
      "1<a>2<a><b>x<a", [&](std::string_view text) { return parts.append(text), true; },
      [&](int32_t id) { parts += Message('[', id, ']'); });
  EXPECT_EQ(parts, "1[1]2[2]x<a");
}

}  // namespace
}  // namespace catserve

// The file of tokens: what it takes, and how it says what is wrong.
#include "server/config/tokens_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace catserve {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

const std::string kHash(64, 'a'), kOther(64, 'B');

std::string Error(const std::string& text) {
  const auto entries = ParseTokens(text, "t.yaml");
  return entries.ok() ? "accepted" : std::string(entries.status().message());
}

TEST(TokensFile, OwnersHaveTokensAndPerhapsLimits) {
  const auto entries = ParseTokens(
      absl::StrCat("- owner: team-a\n  sha256: ", kHash, "\n  requests_max: 3\n",
                   "  tokens_per_minute_max: 5000000000\n- {owner: b@x.org, sha256: ", kOther, "}"),
      "t.yaml");
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_THAT(*entries, SizeIs(2));
  EXPECT_EQ((*entries)[0].owner, "team-a");
  EXPECT_EQ((*entries)[0].sha256, std::string(32, '\xaa'));
  EXPECT_EQ((*entries)[0].limits, (OwnerLimits{3, 5'000'000'000}));
  EXPECT_EQ((*entries)[1].sha256, std::string(32, '\xbb'));
  EXPECT_EQ((*entries)[1].limits, OwnerLimits());
}

TEST(TokensFile, NobodyMayCallOnlyIfTheFileSaysSo) {
  EXPECT_THAT(*ParseTokens("[]", "t.yaml"), SizeIs(0));
  EXPECT_THAT(Error(""), HasSubstr("t.yaml:1: a list of tokens is expected"));
  EXPECT_THAT(Error("tokens: []\n"), HasSubstr("t.yaml:1: a list of tokens is expected"));
}

TEST(TokensFile, EachMistakeNamesItsLine) {
  const std::string good = absl::StrCat("- owner: a\n  sha256: ", kHash, "\n");
  const struct {
    std::string text;
    const char* start;
    const char* says;
  } cases[] = {
      {"- owner: a\n", "t.yaml:1: ", "sha256: missing"},
      {absl::StrCat("- sha256: ", kHash, "\n"), "t.yaml:1: ", "owner: missing"},
      {"- a\n", "t.yaml:1: ", "an entry is expected"},
      {good + "  requests_max: 0\n", "t.yaml:3: requests_max: 0", "1 to 1000000"},
      {good + "  tokens_per_minute_max: -5\n", "t.yaml:3: ", "1 to 1000000000000"},
      {good + "  requests_max: '3'\n", "t.yaml:3: ", "whole numbers"},
      {good + "  request_max: 3\n", "t.yaml:3: request_max: ", "requests_max"},
      {good + good, "t.yaml:3: ", "there twice"},
      {good + absl::StrCat("- owner: a\n  sha256: ", kOther, "\n  requests_max: 1\n"),
       "t.yaml:3: ", "the same limits"},
      {absl::StrCat("- owner: a b\n  sha256: ", kHash), "t.yaml:1: owner: a b", "64 characters"},
      {absl::StrCat("- owner: ", std::string(65, 'a'), "\n"), "t.yaml:1: owner: ", "64 characters"},
      {"- owner: [a]\n", "t.yaml:1: owner: ", "one value"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    EXPECT_THAT(Error(c.text), StartsWith(c.start));
    EXPECT_THAT(Error(c.text), HasSubstr(c.says));
  }
}

TEST(TokensFile, ATokenPutWhereItsHashBelongsIsNotTold) {
  const std::string error = Error("- owner: a\n  sha256: catserve_secret\n");
  EXPECT_THAT(error, StartsWith("t.yaml:2: sha256: is no hash"));
  EXPECT_THAT(error, Not(HasSubstr("secret")));
}

TEST(TokensFile, SeveralTokensOfOneOwnerReplaceEachOther) {
  EXPECT_EQ(Error(absl::StrCat("- {owner: a, sha256: ", kHash, ", requests_max: 2}\n",
                               "- {owner: a, sha256: ", kOther, ", requests_max: 2}\n")),
            "accepted");
}

}  // namespace
}  // namespace catserve

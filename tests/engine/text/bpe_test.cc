#include "engine/text/bpe.h"

#include <algorithm>
#include <limits>
#include <map>
#include <random>

#include "gtest/gtest.h"

namespace catserve {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

// A vocabulary of a, b, c (ids 0, 1, 2) and what the merges make of them.
TokenTable TableFor(const Pairs& merges) {
  TokenizerSpec spec;
  for (const char* letter : {"a", "b", "c"}) {
    spec.vocab.emplace_back(letter, static_cast<int32_t>(spec.vocab.size()));
  }
  for (const auto& [left, right] : merges) {
    const std::string both = left + right;
    const auto same = [&](const auto& entry) { return entry.first == both; };
    if (std::ranges::any_of(spec.vocab, same)) continue;
    spec.vocab.emplace_back(both, static_cast<int32_t>(spec.vocab.size()));
  }
  return *TokenTable::Build(spec);
}

std::vector<std::string> Merged(const Pairs& merges, std::string_view text) {
  const TokenTable table = TableFor(merges);
  const absl::StatusOr<BpeMerges> bpe = BpeMerges::Build(table, merges);
  std::vector<int32_t> ids;
  for (const char letter : text) ids.push_back(letter - 'a');
  BpeMerges::Scratch scratch;
  bpe->Apply(ids, scratch);
  std::vector<std::string> tokens;
  for (const int32_t id : ids) tokens.emplace_back(table.Spelling(id));
  return tokens;
}

using Tokens = std::vector<std::string>;

TEST(Bpe, TheHighestRankedPairGoesFirst) {
  EXPECT_EQ(Merged({{"b", "c"}, {"a", "b"}}, "abc"), (Tokens{"a", "bc"}));
  EXPECT_EQ(Merged({{"a", "b"}, {"b", "c"}}, "abc"), (Tokens{"ab", "c"}));
}

TEST(Bpe, EqualPairsMergeFromTheLeft) {
  EXPECT_EQ(Merged({{"a", "a"}}, "aaaaa"), (Tokens{"aa", "aa", "a"}));
}

TEST(Bpe, MergedTokensMergeOn) {
  EXPECT_EQ(Merged({{"a", "a"}, {"aa", "aa"}, {"aaaa", "b"}}, "aaaab"), (Tokens{"aaaab"}));
}

TEST(Bpe, NothingToMerge) {
  EXPECT_EQ(Merged({{"a", "b"}}, ""), Tokens{});
  EXPECT_EQ(Merged({{"a", "b"}}, "a"), Tokens{"a"});
  EXPECT_EQ(Merged({}, "abc"), (Tokens{"a", "b", "c"}));
}

// The textbook's way: again and again, find the best pair anywhere.
std::vector<std::string> Textbook(const Pairs& merges, std::string_view text) {
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (size_t i = 0; i < merges.size(); ++i) ranks.emplace(merges[i], i);
  std::vector<std::string> tokens;
  for (const char letter : text) tokens.emplace_back(1, letter);
  while (true) {
    size_t best = std::numeric_limits<size_t>::max();
    size_t at = 0;
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto rank = ranks.find({tokens[i], tokens[i + 1]});
      if (rank == ranks.end() || rank->second >= best) continue;
      best = rank->second;
      at = i;
    }
    if (best == std::numeric_limits<size_t>::max()) return tokens;
    tokens[at] += tokens[at + 1];
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(Bpe, AgreesWithTheTextbookOnRandomMergesAndTexts) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> tokens = {"a", "b", "c"};
    Pairs merges;
    for (int i = 0; i < 12; ++i) {
      const std::string left = tokens[random() % tokens.size()];
      const std::string right = tokens[random() % tokens.size()];
      // One way to make each token, as training gives: else "best" has two readings.
      if (std::ranges::find(tokens, left + right) != tokens.end()) continue;
      merges.emplace_back(left, right);
      tokens.push_back(left + right);
    }
    std::string text(random() % 40, 'a');
    for (char& letter : text) letter = "abc"[random() % 3];
    ASSERT_EQ(Merged(merges, text), Textbook(merges, text)) << text;
  }
}

TEST(Bpe, MergesMustNameKnownTokensOnce) {
  const TokenTable table = TableFor({{"a", "b"}});
  EXPECT_TRUE(BpeMerges::Build(table, {{"a", "b"}}).ok());
  for (const Pairs& merges :
       {Pairs{{"a", "x"}}, Pairs{{"x", "a"}}, Pairs{{"b", "a"}}, Pairs{{"a", "b"}, {"a", "b"}}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(BpeMerges::Build(table, merges).status()));
  }
}

}  // namespace
}  // namespace catserve

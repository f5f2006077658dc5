#include "engine/schedule/prefix_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/engine/test_models.h"

namespace catserve {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class PrefixCacheTest : public testing::Test {
 protected:
  // The memory of a text of which all complete chunks were read.
  PageTable Read(const std::vector<TokenId>& tokens) {
    PageTable table(pool_);
    EXPECT_TRUE(table.Append(1 + layout_.Units(std::ssize(tokens))));
    return table;
  }
  PageTable Keep(const std::vector<TokenId>& tokens, const std::string& salt = "") {
    PageTable table = Read(tokens);
    cache_.Insert({4, salt}, layout_, tokens, layout_.Units(std::ssize(tokens)), table);
    return table;
  }
  PrefixHit Find(const std::vector<TokenId>& tokens, const std::string& salt = "") {
    return cache_.Find({4, salt}, layout_, tokens, layout_.Units(std::ssize(tokens)));
  }
  static std::vector<TokenId> Joined(std::vector<TokenId> a, const std::vector<TokenId>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }

  PagePool pool_{10};
  PrefixCache cache_{pool_};
  const Layout layout_{CatShape(1024), 4};  // the first page holds g_0 and 15 chunks: 60 tokens
};

TEST_F(PrefixCacheTest, FindsSealedPagesToShareAndTheRestToCopy) {
  std::vector<PageId> pages;
  {
    const PageTable table = Keep(Words(60 + 64 + 8));
    pages.assign(table.pages().begin(), table.pages().end());
  }
  const PrefixHit hit = Find(Words(300));
  EXPECT_THAT(hit.pages, ElementsAre(pages[0], pages[1]));
  EXPECT_EQ(hit.partial, pages[2]);
  EXPECT_EQ(hit.partial_entries, 2);
  EXPECT_EQ(hit.units, 15 + 16 + 2);
}

TEST_F(PrefixCacheTest, HitsAreAsFineAsAChunk) {
  const PageTable table = Keep(Words(60));
  EXPECT_EQ(Find(Words(3)).units, 0);
  EXPECT_EQ(Find(Words(4)).units, 1);
  const PrefixHit hit = Find(Joined(Words(23), Words(40, 1)));  // alike in 5 chunks and a bit
  EXPECT_THAT(hit.pages, IsEmpty());
  EXPECT_EQ(hit.partial_entries, 1 + 5);
  EXPECT_EQ(hit.units, 5);
}

TEST_F(PrefixCacheTest, OtherSaltsAndChunkSizesFindNothing) {
  const PageTable table = Keep(Words(60), "a");
  EXPECT_EQ(Find(Words(60), "a").units, 15);
  EXPECT_EQ(Find(Words(60)).units, 0);
  EXPECT_EQ(Find(Words(60), "b").units, 0);
  EXPECT_EQ(cache_.Find({8, "a"}, Layout(CatShape(1024), 8), Words(60), 7).units, 0);
}

TEST_F(PrefixCacheTest, AWriterGrowsItsPageAndNothingIsKeptTwice) {
  PageTable table = Read(Words(200));
  for (int32_t units = 1; units <= 40; ++units) {
    cache_.Insert({4, ""}, layout_, Words(200), units, table);
    EXPECT_EQ(Find(Words(200)).units, units);
    EXPECT_EQ(cache_.nodes(), PagesFor(1 + units));
  }
}

TEST_F(PrefixCacheTest, EqualTextsReadAtOnceComeToShareTheirSealedPages) {
  const PageTable first = Keep(Words(60 + 20));
  const PageTable second = Keep(Words(60 + 20));
  EXPECT_EQ(first.pages()[0], second.pages()[0]);
  EXPECT_NE(first.pages()[1], second.pages()[1]);  // each goes on in its own
  EXPECT_EQ(pool_.held(), 3);
  EXPECT_EQ(cache_.nodes(), 2);
}

TEST_F(PrefixCacheTest, ALongerTextTakesThePlaceOfItsBeginning) {
  { const PageTable table = Keep(Words(20)); }
  EXPECT_EQ(pool_.idle(), 1);
  const PageTable table = Keep(Words(40));
  EXPECT_EQ(cache_.nodes(), 1);
  EXPECT_EQ(pool_.idle(), 0);
  { const PageTable shorter = Keep(Words(24)); }
  EXPECT_EQ(cache_.nodes(), 1);
  EXPECT_EQ(Find(Words(40)).partial, table.pages()[0]);
}

TEST_F(PrefixCacheTest, TheTextLeftLongestAgoGoesFirstAndItsDeepestPageBefore) {
  { const PageTable old = Keep(Words(60 + 64, 1)); }
  { const PageTable newer = Keep(Words(60 + 64, 2)); }
  std::vector<PageId> taken;
  ASSERT_TRUE(pool_.Allocate(7, taken));  // 6 are free
  EXPECT_EQ(Find(Words(124, 1)).units, 15);
  EXPECT_EQ(Find(Words(124, 2)).units, 31);
  ASSERT_TRUE(pool_.Allocate(1, taken));
  EXPECT_EQ(Find(Words(124, 1)).units, 0);
  ASSERT_TRUE(pool_.Allocate(2, taken));
  EXPECT_EQ(cache_.nodes(), 0);
}

TEST_F(PrefixCacheTest, WhatIsFoundAgainIsYoungAgain) {
  { const PageTable old = Keep(Words(60, 1)); }
  { const PageTable newer = Keep(Words(60, 2)); }
  {
    PageTable again(pool_);
    again.Adopt(Find(Words(60, 1)).pages);
  }
  std::vector<PageId> taken;
  ASSERT_TRUE(pool_.Allocate(9, taken));
  EXPECT_EQ(Find(Words(60, 1)).units, 15);
  EXPECT_EQ(Find(Words(60, 2)).units, 0);
}

TEST_F(PrefixCacheTest, SaltsThatComeAndGoLeaveNothingBehind) {
  for (int i = 0; i < 1000; ++i) {
    const PageTable table = Keep(Words(60, i), std::to_string(i));
  }
  EXPECT_LE(cache_.nodes(), 10);
  EXPECT_EQ(cache_.domains(), cache_.nodes());
}

TEST_F(PrefixCacheTest, ADenseModelIsFoundTokenByToken) {
  const Layout dense(DenseShape(), 0);
  PageTable table(pool_);
  ASSERT_TRUE(table.Append(40));
  cache_.Insert({0, ""}, dense, Words(40), 40, table);
  const PrefixHit hit =
      cache_.Find({0, ""}, dense, Words(37), dense.ReusableUnits(37));  // one row runs
  EXPECT_THAT(hit.pages, ElementsAre(table.pages()[0], table.pages()[1]));
  EXPECT_EQ(hit.partial_entries, 4);
  EXPECT_EQ(hit.units, 36);
}

}  // namespace
}  // namespace catserve

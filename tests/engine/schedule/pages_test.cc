#include "engine/schedule/page_pool.h"
#include "engine/schedule/page_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <utility>

#include "engine/geometry.h"

namespace catserve {
namespace {

TEST(PagePool, GivesEachPageOnceAndAllOrNothing) {
  PagePool pool(3);
  std::vector<PageId> pages;
  EXPECT_TRUE(pool.Allocate(2, pages));
  EXPECT_FALSE(pool.Allocate(2, pages));
  EXPECT_EQ(pages.size(), 2u);
  EXPECT_TRUE(pool.Allocate(1, pages));
  EXPECT_THAT(std::set<PageId>(pages.begin(), pages.end()), testing::ElementsAre(0, 1, 2));
  EXPECT_EQ(pool.held(), 3);
  pool.Free(pages);
  EXPECT_EQ(pool.held(), 0);
}

TEST(PagePoolDeathTest, APageGivenBackTwiceIsFound) {
  PagePool pool(2);
  std::vector<PageId> pages;
  ASSERT_TRUE(pool.Allocate(1, pages));
  pool.Free(pages);
  EXPECT_DEATH(pool.Free(pages), "given back but not taken");
  const PageId none[] = {7};
  EXPECT_DEATH(pool.Free(none), "given back but not taken");
}

TEST(PagePool, AKeptPageFallsIdleAndIsTakenLast) {
  PagePool pool(3);
  std::vector<PageId> evicted;
  pool.OnEvict([&](PageId page) {
    evicted.push_back(page);
    pool.Forget(page);
  });
  std::vector<PageId> pages;
  ASSERT_TRUE(pool.Allocate(2, pages));
  for (const PageId page : pages) pool.Keep(page);
  pool.Free(pages);
  EXPECT_EQ(pool.held(), 0);
  EXPECT_EQ(pool.idle(), 2);
  EXPECT_EQ(pool.available(), 3);
  std::vector<PageId> others;
  ASSERT_TRUE(pool.Allocate(1, others));
  EXPECT_TRUE(evicted.empty());  // there was a free one
  ASSERT_TRUE(pool.Allocate(2, others));
  EXPECT_THAT(evicted, testing::ElementsAre(pages[1], pages[0]));  // the deepest first
  EXPECT_FALSE(pool.Allocate(1, others));
}

TEST(PagePool, ASharedPageIsFreeWhenItsLastHolderLeaves) {
  PagePool pool(1);
  std::vector<PageId> page;
  ASSERT_TRUE(pool.Allocate(1, page));
  pool.Hold(page[0]);
  pool.Free(page);
  EXPECT_EQ(pool.held(), 1);
  pool.Free(page);
  EXPECT_EQ(pool.free(), 1);
}

TEST(PagePool, AnIdlePageThatIsHeldAgainIsNotEvicted) {
  PagePool pool(1);
  pool.OnEvict([](PageId) { FAIL() << "it is held"; });
  std::vector<PageId> page, other;
  ASSERT_TRUE(pool.Allocate(1, page));
  pool.Keep(page[0]);
  pool.Free(page);
  pool.Hold(page[0]);
  EXPECT_FALSE(pool.Allocate(1, other));
}

TEST(PageTable, TakesAPageOnlyWhenTheLastIsFull) {
  PagePool pool(4);
  PageTable table(pool);
  EXPECT_TRUE(table.Append(1));
  EXPECT_EQ(pool.held(), 1);
  EXPECT_TRUE(table.Append(kPageEntries - 1));
  EXPECT_EQ(pool.held(), 1);
  EXPECT_TRUE(table.Append(1));
  EXPECT_EQ(pool.held(), 2);
}

TEST(PageTable, TruncateGivesBackWholePagesAndKeepsTheFirst) {
  PagePool pool(4);
  PageTable table(pool);
  ASSERT_TRUE(table.Append(3 * kPageEntries));
  const PageId first = table.pages()[0];
  table.Truncate(kPageEntries + 1);
  EXPECT_EQ(pool.held(), 2);
  table.Truncate(1);
  EXPECT_EQ(pool.held(), 1);
  EXPECT_EQ(table.pages()[0], first);
  table.Truncate(0);
  EXPECT_EQ(pool.held(), 0);
}

TEST(PageTable, AnAppendThatFailsChangesNothing) {
  PagePool pool(2);
  PageTable table(pool);
  ASSERT_TRUE(table.Append(5));
  EXPECT_FALSE(table.Append(2 * kPageEntries));
  EXPECT_EQ(table.entries(), 5);
  EXPECT_EQ(pool.held(), 1);
}

TEST(PageTable, GivesItsPagesBackOnceWhenItGoesEvenIfMoved) {
  PagePool pool(2);
  {
    PageTable table(pool);
    ASSERT_TRUE(table.Append(20));
    const PageTable moved(std::move(table));
    EXPECT_EQ(moved.entries(), 20);
    EXPECT_EQ(pool.held(), 2);
  }
  EXPECT_EQ(pool.held(), 0);
}

TEST(PageTableDeathTest, CannotTruncateToMoreThanThereIs) {
  PagePool pool(2);
  PageTable table(pool);
  ASSERT_TRUE(table.Append(3));
  EXPECT_DEATH(table.Truncate(4), "cannot truncate 3 entries to 4");
}

}  // namespace
}  // namespace catserve

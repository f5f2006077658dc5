#include "engine/schedule/budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "tests/engine/test_models.h"

namespace catserve {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

ModelGeometry Shape256() {
  ModelGeometry model = CatShape(256);
  model.chunk_sizes = {8, 16, 32};
  return model;
}

const int64_t kPageBytes = kPageEntries * Shape256().bytes_per_entry;

Request Automatic(int32_t prompt, int32_t max_tokens) {
  Request request = Generate(Words(prompt), 0, max_tokens);
  request.budget = {.automatic = true};
  return request;
}

TEST(Budget, TheLastTokenDrawnIsNeverRead) {
  EXPECT_EQ(LargestLength(Generate(Words(5), 8, 0)), 5);
  EXPECT_EQ(LargestLength(Generate(Words(5), 8, 1)), 5);
  EXPECT_EQ(LargestLength(Generate(Words(5), 8, 3)), 7);
}

TEST(Budget, APrefillSkipsTheFullestMoments) {
  // 256 tokens at C = 32: 8 summaries, g_0 and the separator; growing there takes 40 entries.
  EXPECT_EQ(PagesPerChoice(Shape256(), Generate(Words(256), 32, 0), 32), 1);
  EXPECT_EQ(PagesPerChoice(Shape256(), Generate(Words(1), 32, 255), 32), 3);
  EXPECT_EQ(PagesPerChoice(DenseShape(), Generate(Words(100), 0, 0), 0), 7);
}

TEST(Budget, AFixedChunkSizeIsExact) {
  const Request request = Generate(Words(10), 16, 7);  // 17 entries before the chunk closes
  EXPECT_EQ(FitsAlone(Shape256(), request, 100), 16);
  EXPECT_EQ(FitsAlone(Shape256(), request, 1), std::nullopt);
}

TEST(Budget, AutomaticKeepsItsRange) {
  // Peaks at 256 tokens, growing from 1: 40, 32 and 40 entries, so 3, 2 and 3 pages.
  Request request = Automatic(1, 256);
  EXPECT_EQ(FitsAlone(Shape256(), request, 3), 8);
  EXPECT_EQ(FitsAlone(Shape256(), request, 2), 16);
  EXPECT_EQ(FitsAlone(Shape256(), request, 1), std::nullopt);
  request.budget.chunk_size_min = 32;
  EXPECT_EQ(FitsAlone(Shape256(), request, 2), std::nullopt);  // 16 would, but is not allowed
  request.budget = {.automatic = true, .chunk_size_max = 8};
  EXPECT_THAT(AllowedChunkSizes(Shape256(), request.budget), ElementsAre(8));
}

TEST(Budget, ADenseModelHasOneSize) {
  EXPECT_EQ(FitsAlone(DenseShape(), Generate(Words(16), 0, 1), 1), 0);
  EXPECT_EQ(FitsAlone(DenseShape(), Generate(Words(16), 0, 2), 1), std::nullopt);
}

TEST(Budget, ABoundMustHoldThePromptOfAllChoices) {
  Request request = Automatic(200, 56);
  request.choices = 2;
  request.budget.kv_bytes_max = 4 * kPageBytes;  // 2 pages each: 25 summaries need them at C = 8
  EXPECT_EQ(FitsAlone(Shape256(), request, 100), 8);
  request.budget.kv_bytes_max = 2 * kPageBytes;
  EXPECT_EQ(FitsAlone(Shape256(), request, 100), 32);
  request.budget.kv_bytes_max = kPageBytes;
  EXPECT_EQ(FitsAlone(Shape256(), request, 100), std::nullopt);
}

// -- The policy. A resident of 256 tokens' expected length, now at 128.
// -----------------------------

const Budget kAny{.automatic = true};

Resident At(int32_t chunk_size, const Budget& budget = kAny) {
  Resident resident{.budget = &budget, .chunk_size = chunk_size, .tokens = 128, .end = 256};
  resident.pages_owned = PagesNow(Shape256(), resident, chunk_size);
  resident.tokens_since_change = 100;
  return resident;
}

TEST(Budget, StartsWithTheBestByMeasureElseTheFinest) {
  EXPECT_THAT(StartSizes(Shape256(), Quality(), At(8)), ElementsAre(8, 16, 32));
  const Quality measured({{{8, 0.04}, {16, 0.01}, {32, 0}}});
  EXPECT_THAT(StartSizes(Shape256(), measured, At(8)), ElementsAre(32, 16, 8));
}

TEST(Budget, EachRequestRanksByItsOwnColumn) {
  const Quality measured({{{8, 0.04}, {16, 0.01}, {32, 0}}, {{8, 0.2}, {16, 0}, {32, 0.6}}});
  Budget by_recall = kAny;
  by_recall.quality_column = 1;
  EXPECT_THAT(StartSizes(Shape256(), measured, At(8)), ElementsAre(32, 16, 8));
  EXPECT_THAT(StartSizes(Shape256(), measured, At(8, by_recall)), ElementsAre(16, 8, 32));
  EXPECT_THAT(Refinements(Shape256(), measured, At(8)), ElementsAre(32, 16));
  EXPECT_THAT(Refinements(Shape256(), measured, At(8, by_recall)), ElementsAre(16));
}

TEST(Budget, NothingLeavesTheChunkSizesThatABoundOnQualityLeaves) {
  Budget bounded = kAny;
  bounded.among = {8, 32};  // 16 would hold least, and lose less than 32
  EXPECT_THAT(AllowedChunkSizes(Shape256(), bounded), ElementsAre(8, 32));
  EXPECT_THAT(StartSizes(Shape256(), Quality(), At(8, bounded)), ElementsAre(8, 32));
  EXPECT_THAT(Refinements(Shape256(), Quality(), At(32, bounded)), ElementsAre(8));
  EXPECT_FALSE(BestCoarsening(Shape256(), Quality(), std::vector{At(8, bounded)}, false));
  EXPECT_EQ(SmallestSize(Shape256(), At(8, bounded)), 8);
  bounded.chunk_size_min = 16;
  EXPECT_THAT(AllowedChunkSizes(Shape256(), bounded), ElementsAre(32));
  bounded.chunk_size_max = 16;
  EXPECT_THAT(AllowedChunkSizes(Shape256(), bounded), IsEmpty());
}

TEST(Budget, StartsWithinItsBoundElseWithWhatKeepsItLongest) {
  Budget bounded = kAny;
  bounded.kv_bytes_max = 2 * kPageBytes;  // 256 tokens: 3, 2 and 3 pages
  EXPECT_THAT(StartSizes(Shape256(), Quality(), At(8, bounded)), ElementsAre(16));
  bounded.kv_bytes_max = kPageBytes;
  EXPECT_THAT(StartSizes(Shape256(), Quality(), At(8, bounded)), ElementsAre(16));
}

TEST(Budget, CoarsensWhatFreesMostForTheQualityLost) {
  const ModelGeometry model = CatShape(1024);  // 1, 2, 4, 8, 16
  Resident fine{.budget = &kAny, .chunk_size = 2, .tokens = 100, .end = 1000, .pages_owned = 4};
  Resident coarse{.budget = &kAny, .chunk_size = 8, .tokens = 100, .end = 1000, .pages_owned = 2};
  const auto best = BestCoarsening(model, Quality(), std::vector{coarse, fine}, false);
  ASSERT_TRUE(best);
  EXPECT_EQ(best->resident, 1u);   // at the end 32 pages of C = 2 against 9 of C = 8
  EXPECT_EQ(best->chunk_size, 4);  // 16 pages for one doubling; the next frees only 7 more
}

TEST(Budget, NeverTouchesAFixedBudgetNorMakesAChangeThatFreesNothing) {
  const Budget fixed{.chunk_size = 8};
  EXPECT_FALSE(BestCoarsening(Shape256(), Quality(), std::vector{At(8, fixed)}, false));
  // 3 pages at C = 8 and 32, 2 at 16: there is one way down, and none from there.
  const auto best = BestCoarsening(Shape256(), Quality(), std::vector{At(8)}, false);
  ASSERT_TRUE(best);
  EXPECT_EQ(best->chunk_size, 16);
  EXPECT_FALSE(BestCoarsening(Shape256(), Quality(), std::vector{At(16)}, false));
  Resident sharing = At(8);
  sharing.pages_shared = 1;  // others go on to hold it
  EXPECT_FALSE(BestCoarsening(Shape256(), Quality(), std::vector{sharing}, false));
}

TEST(Budget, AtOnceWantsPagesNow) {
  Resident resident = At(8);
  resident.pages_owned = 1;  // its own prefill goes on: there is nothing to free yet
  EXPECT_FALSE(BestCoarsening(Shape256(), Quality(), std::vector{resident}, true));
  EXPECT_TRUE(BestCoarsening(Shape256(), Quality(), std::vector{resident}, false));
}

TEST(Budget, RefinesNotTooEarlyNorTooLate) {
  Resident resident = At(32);
  EXPECT_THAT(Refinements(Shape256(), Quality(), resident), ElementsAre(8, 16));
  resident.tokens_since_change = kRefineAfterTokens - 1;
  EXPECT_TRUE(Refinements(Shape256(), Quality(), resident).empty());
  resident = At(32);
  resident.tokens = 200;
  EXPECT_TRUE(Refinements(Shape256(), Quality(), resident).empty());
  EXPECT_TRUE(Refinements(Shape256(), Quality(), At(8)).empty());
}

TEST(Budget, ABoundThatIsMetCoarsensOrEnds) {
  Budget bounded = kAny;
  bounded.kv_bytes_max = 2 * kPageBytes;
  EXPECT_EQ(SizeWithinBound(Shape256(), Quality(), At(8, bounded)), 16);
  bounded.kv_bytes_max = kPageBytes;
  EXPECT_EQ(SizeWithinBound(Shape256(), Quality(), At(16, bounded)), std::nullopt);
}

}  // namespace
}  // namespace catserve

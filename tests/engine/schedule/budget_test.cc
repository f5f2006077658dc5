#include "engine/schedule/budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/test_models.h"

namespace catserve {
namespace {

ModelGeometry Shape256() {
  ModelGeometry model = CatShape(256);
  model.chunk_sizes = {8, 16, 32};
  return model;
}

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
  EXPECT_EQ(Choose(Shape256(), request, 100)->chunk_size, 16);
  EXPECT_FALSE(Choose(Shape256(), request, 1).has_value());
}

TEST(Budget, AutomaticTakesTheFinestThatFits) {
  // Peaks at 256 tokens, growing from 1: 40, 32 and 40 entries, so 3, 2 and 3 pages.
  const Request request = Automatic(1, 256);
  EXPECT_EQ(Choose(Shape256(), request, 3)->chunk_size, 8);
  EXPECT_EQ(Choose(Shape256(), request, 2)->chunk_size, 16);
  EXPECT_FALSE(Choose(Shape256(), request, 1).has_value());
}

TEST(Budget, AutomaticKeepsItsRange) {
  Request request = Automatic(1, 256);
  request.budget.chunk_size_min = 16;
  EXPECT_EQ(Choose(Shape256(), request, 100)->chunk_size, 16);
  request.budget.chunk_size_min = 32;
  EXPECT_FALSE(Choose(Shape256(), request, 2).has_value());  // 16 would fit, but is not allowed
  request.budget = {.automatic = true, .chunk_size_max = 8};
  EXPECT_THAT(AllowedChunkSizes(Shape256(), request.budget), testing::ElementsAre(8));
}

TEST(Budget, KvBytesMaxBoundsAllChoicesTogether) {
  Request request = Automatic(1, 256);
  const int64_t page = kPageEntries * Shape256().bytes_per_entry;
  request.budget.kv_bytes_max = 2 * page;
  EXPECT_EQ(Choose(Shape256(), request, 100)->chunk_size, 16);
  request.choices = 2;
  EXPECT_FALSE(Choose(Shape256(), request, 100).has_value());
  request.budget.kv_bytes_max = 4 * page;
  EXPECT_EQ(Choose(Shape256(), request, 100)->chunk_size, 16);
}

TEST(Budget, ADenseModelHasOneSize) {
  EXPECT_EQ(Choose(DenseShape(), Generate(Words(16), 0, 1), 1)->chunk_size, 0);
  EXPECT_FALSE(Choose(DenseShape(), Generate(Words(16), 0, 2), 1).has_value());
}

}  // namespace
}  // namespace catserve

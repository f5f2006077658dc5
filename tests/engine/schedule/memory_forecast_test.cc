#include "engine/schedule/memory_forecast.h"

#include <gtest/gtest.h>

#include "engine/schedule/drain_rate.h"
#include "tests/engine/test_models.h"

namespace catserve {
namespace {

Holding Dense(int32_t tokens, int32_t end) { return {.tokens = tokens, .end = end}; }

TEST(MemoryForecast, ASequenceTakesWhatItHoldsAtItsEnd) {
  EXPECT_EQ(ForecastPages(DenseShape(), {Dense(16, 64)}, 100), 4);
  EXPECT_EQ(ForecastPages(DenseShape(), {}, 100), 0);
}

TEST(MemoryForecast, WhoEndsMakesRoomForWhoGrows) {
  // The long one is at 48 of its 80 tokens (3 of 5 pages) when the short one leaves with 4.
  EXPECT_EQ(ForecastPages(DenseShape(), {Dense(16, 80), Dense(32, 64)}, 100), 3 + 4);
  // If the short one stays, both count with their most.
  Holding stays = Dense(32, 64);
  stays.stays = true;
  EXPECT_EQ(ForecastPages(DenseShape(), {Dense(16, 80), stays}, 100), 5 + 4);
}

TEST(MemoryForecast, ASharedPageCountsOnceAndForWhoStaysLongest) {
  Holding a = Dense(48, 64), b = Dense(48, 80);
  a.shareable = b.shareable = {5, 6, 7};
  EXPECT_EQ(ForecastPages(DenseShape(), {a, b}, 100), 4 + 4 - 3);
  a.shareable = {};
  EXPECT_EQ(ForecastPages(DenseShape(), {a, b}, 100), 4 + 4);
}

TEST(MemoryForecast, LengthsAreLearnedAndForgotten) {
  LengthForecast lengths;
  EXPECT_EQ(lengths.Expect(0, 100), 100);
  for (int i = 0; i < 200; ++i) lengths.Learn(20, 100);
  EXPECT_EQ(lengths.Expect(0, 100), 26);    // with a margin, rounded up
  EXPECT_EQ(lengths.Expect(30, 100), 100);  // longer than expected: to the end
  for (int i = 0; i < 200; ++i) lengths.Learn(100, 100);
  EXPECT_EQ(lengths.Expect(0, 100), 100);
  lengths.Learn(0, 0);  // nothing was asked for: nothing is learned
  EXPECT_EQ(lengths.Expect(0, 100), 100);
}

TEST(DrainRate, TellsTheObservedIntervalAndSpreadsTheRefused) {
  absl::Time now = absl::FromUnixSeconds(1000);
  DrainRate rate;
  EXPECT_EQ(rate.RetryAfter(now), absl::Seconds(1));  // nothing was seen yet
  for (int i = 0; i < 500; ++i) rate.Left(1, now += absl::Milliseconds(100));
  EXPECT_NEAR(absl::ToDoubleMilliseconds(rate.RetryAfter(now)), 100, 1);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(rate.RetryAfter(now)), 200, 1);  // the second in a row
  rate.Left(1, now += absl::Milliseconds(100));
  EXPECT_NEAR(absl::ToDoubleMilliseconds(rate.RetryAfter(now)), 100, 1);
}

TEST(DrainRate, ASilentQueueIsSlowAndThereAreBounds) {
  absl::Time now = absl::FromUnixSeconds(1000);
  DrainRate rate;
  for (int i = 0; i < 500; ++i) rate.Left(1, now += absl::Microseconds(10));
  EXPECT_EQ(rate.RetryAfter(now), DrainRate::kRetryLeast);
  EXPECT_GE(rate.RetryAfter(now + absl::Seconds(5)), absl::Seconds(5));
  EXPECT_EQ(rate.RetryAfter(now + absl::Hours(1)), DrainRate::kRetryMost);
}

}  // namespace
}  // namespace catserve

// The scalar arithmetic that everything else rests on.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>

#include "gtest/gtest.h"
#include "kernels/bfloat16.h"
#include "kernels/cpu/math.h"
#include "kernels/sampling.h"

namespace catserve {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Distance of `got` from the exact value, in units of the last place of F32 there.
double UlpsFrom(double want, float got) {
  const float near = static_cast<float>(want);
  const double ulp = double{std::nextafter(std::abs(near), kInfinity)} - std::abs(near);
  return std::abs(got - want) / ulp;
}

TEST(ExpTest, IsWithinTwoUlpEverywhere) {
  double worst = 0;
  for (float x = -103.9f; x < 88.7f; x += 0.000717f) {
    worst = std::max(worst, UlpsFrom(std::exp(double{x}), cpu::Exp(x)));
  }
  EXPECT_LT(worst, 2.0);
}

TEST(ExpTest, HandlesTheEdges) {
  EXPECT_EQ(cpu::Exp(0.0f), 1.0f);
  EXPECT_EQ(cpu::Exp(-0.0f), 1.0f);
  EXPECT_EQ(cpu::Exp(-kInfinity), 0.0f);
  EXPECT_EQ(cpu::Exp(-1e30f), 0.0f);
  EXPECT_EQ(cpu::Exp(-104.5f), 0.0f);
  EXPECT_GT(cpu::Exp(-103.0f), 0.0f) << "subnormal results are kept";
  EXPECT_EQ(cpu::Exp(kInfinity), kInfinity);
  EXPECT_EQ(cpu::Exp(89.0f), kInfinity);
  EXPECT_TRUE(std::isfinite(cpu::Exp(88.7f)));
  EXPECT_TRUE(std::isnan(cpu::Exp(kNaN)));
}

TEST(BFloat16Test, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = FloatFromBF16(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(FloatFromBF16(BF16FromFloat(value))));
    } else {
      ASSERT_EQ(BF16FromFloat(value), bits);
    }
  }
}

TEST(BFloat16Test, RoundsToNearestTiesToEven) {
  EXPECT_EQ(BF16FromFloat(1.0f + 0x1p-8f), 0x3f80);             // a tie, down to even
  EXPECT_EQ(BF16FromFloat(1.0f + 3 * 0x1p-8f), 0x3f82);         // a tie, up to even
  EXPECT_EQ(BF16FromFloat(1.0f + 0x1p-8f + 0x1p-20f), 0x3f81);  // just above a tie
  EXPECT_EQ(BF16FromFloat(-1.0f - 3 * 0x1p-8f), 0xbf82);
  EXPECT_EQ(BF16FromFloat(std::numeric_limits<float>::max()), 0x7f80);  // overflows
  EXPECT_EQ(BF16FromFloat(kInfinity), 0x7f80);
  EXPECT_TRUE(std::isnan(FloatFromBF16(BF16FromFloat(std::bit_cast<float>(0x7f800001u)))));
}

TEST(HalfTest, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = FloatFromF16(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(FloatFromF16(F16FromFloat(value))));
    } else {
      ASSERT_EQ(F16FromFloat(value), bits) << value;
    }
  }
}

TEST(HalfTest, KnownValues) {
  EXPECT_EQ(FloatFromF16(0x3c00), 1.0f);
  EXPECT_EQ(FloatFromF16(0x7bff), 65504.0f);
  EXPECT_EQ(FloatFromF16(0x0001), 0x1p-24f);
  EXPECT_EQ(FloatFromF16(0x8400), -0x1p-14f);
  EXPECT_EQ(FloatFromF16(0xfc00), -kInfinity);
}

TEST(HalfTest, RoundsToNearestTiesToEven) {
  EXPECT_EQ(F16FromFloat(1.0f + 0x1p-11f), 0x3c00);
  EXPECT_EQ(F16FromFloat(1.0f + 3 * 0x1p-11f), 0x3c02);
  EXPECT_EQ(F16FromFloat(65519.0f), 0x7bff);
  EXPECT_EQ(F16FromFloat(65520.0f), 0x7c00);
  EXPECT_EQ(F16FromFloat(-1e9f), 0xfc00);
  EXPECT_EQ(F16FromFloat(0x1p-25f), 0x0000);  // a tie with zero
  EXPECT_EQ(F16FromFloat(0x1p-25f + 0x1p-40f), 0x0001);
  EXPECT_EQ(F16FromFloat(0x1p-14f - 0x1p-26f), 0x0400);  // up into the normal numbers
}

TEST(SampleWeightTest, IsAPowerOfTwoScaledToIntegers) {
  EXPECT_EQ(SampleWeight(0.0f), kSampleWeightMax);
  EXPECT_EQ(SampleWeight(-1.0f), kSampleWeightMax / 2);
  EXPECT_EQ(SampleWeight(-39.0f), 2);
  EXPECT_EQ(SampleWeight(-40.0f), 0);
  EXPECT_EQ(SampleWeight(-kInfinity), 0);
  EXPECT_EQ(SampleWeight(kNaN), 0);
  for (float y = 0; y > kSampleFloor; y -= 0.00173f) {
    const double want = 0x1p40 * std::exp2(double{y});
    ASSERT_NEAR(static_cast<double>(SampleWeight(y)), want, 3e-7 * want + 1.0) << y;
  }
}

// The words are part of the contract: a seed must give the same tokens in the next release.
TEST(RandomWordTest, IsFixedForEver) {
  EXPECT_EQ(RandomWord(0, 0, 0), 0x238275bc38fcbe91u);
  EXPECT_EQ(RandomWord(1, 2, 3), 0xd0734750fde362b3u);
}

TEST(RandomWordTest, NeighbouringKeysShareNothing) {
  std::set<uint64_t> words;
  int bits = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    for (uint64_t choice = 0; choice < 10; ++choice) {
      for (uint64_t position = 0; position < 100; ++position) {
        words.insert(RandomWord(seed, choice, position));
        bits += std::popcount(RandomWord(seed, choice, position) ^
                              RandomWord(seed, choice, position + 1));
      }
    }
  }
  EXPECT_EQ(words.size(), 10'000);
  EXPECT_NEAR(bits / 10'000.0, 32.0, 0.2);
}

}  // namespace
}  // namespace catserve

// E4M3 against its definition: every one of the 256 numbers, and rounding between all neighbours.
#include "kernels/float8.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace catserve {
namespace {

// (-1)^s 2^(e - 7) (1 + m / 8), or (-1)^s 2^-6 (m / 8) for e = 0; s1111111 is no number.
double Defined(int bits) {
  const int exponent = bits >> 3 & 15;
  const double mantissa = bits & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa / 8, -6) : std::ldexp(1 + mantissa / 8, exponent - 7);
  return bits >= 128 ? -magnitude : magnitude;
}

TEST(Float8, EveryNumberIsWhatTheFormatSays) {
  for (int bits = 0; bits < 256; ++bits) {
    const float got = FloatFromE4M3(static_cast<uint8_t>(bits));
    if ((bits & 127) == 127) {
      EXPECT_TRUE(std::isnan(got)) << bits;
    } else {
      EXPECT_EQ(got, Defined(bits)) << bits;
      EXPECT_EQ(E4M3FromFloat(got), bits);
    }
  }
  EXPECT_EQ(FloatFromE4M3(0x7e), kE4M3Max);
}

TEST(Float8, BetweenNeighboursTheNearestIsTakenAndAtTheMiddleTheEvenOne) {
  for (int bits = 0; bits < 126; ++bits) {
    const auto below = static_cast<float>(Defined(bits));
    const auto above = static_cast<float>(Defined(bits + 1));
    const float middle = below + (above - below) / 2;  // exact
    EXPECT_EQ(E4M3FromFloat(middle), bits + bits % 2) << bits;
    EXPECT_EQ(E4M3FromFloat(std::nextafter(middle, below)), bits);
    EXPECT_EQ(E4M3FromFloat(std::nextafter(middle, above)), bits + 1);
    EXPECT_EQ(E4M3FromFloat(-middle), (bits + bits % 2) | 128);
  }
}

TEST(Float8, WhatIsTooLargeBecomesTheLargestAndNoNumberStaysNone) {
  for (const float large :
       {449.0f, 463.9f, 464.1f, 1e30f, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(FloatFromE4M3(E4M3FromFloat(large)), kE4M3Max) << large;
    EXPECT_EQ(FloatFromE4M3(E4M3FromFloat(-large)), -kE4M3Max) << large;
  }
  EXPECT_TRUE(std::isnan(FloatFromE4M3(E4M3FromFloat(std::nanf("")))));
}

}  // namespace
}  // namespace catserve

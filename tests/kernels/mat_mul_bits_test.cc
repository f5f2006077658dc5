// The CPU promise of bits_test.cc for products, with weights in every format.
#include <cmath>
#include <utility>

#include "tests/kernels/bits.h"
#include "tests/kernels/held_values.h"

namespace catserve {
namespace {

using testing::AsInt8Inputs;
using testing::AsInt8Weights;
using testing::HostMatrix;
using testing::kInfinity;
using testing::kNaN;
using testing::Make;
using testing::Random;
using testing::SameBits;
using testing::Tensor;

class MatMulBitsTest : public testing::BitsTest {
 protected:
  void CheckShortShapes(WeightFormat format);
};
INSTANTIATE_TEST_SUITE_P(Forms, MatMulBitsTest, ::testing::ValuesIn(testing::VectorisedForms()),
                         testing::BackendTestName);

// Every tile of rows that a form may have, and more rows than any.
const std::vector<int64_t> kFewToMany = {1,  2,  3,  4,  5,  6,  7,  8,   9,  10,
                                         11, 12, 13, 16, 17, 64, 97, 200, 512};

TEST_P(MatMulBitsTest, OfEveryFormat) {
  using Held = std::pair<DType, WeightFormat>;
  for (const auto& [dtype, format] :
       {Held{DType::kF32, WeightFormat::kAsIs}, Held{DType::kBF16, WeightFormat::kAsIs},
        Held{DType::kF16, WeightFormat::kAsIs}, Held{DType::kF32, WeightFormat::kInt8},
        Held{DType::kBF16, WeightFormat::kInt8}, Held{DType::kBF16, WeightFormat::kInt4}}) {
    const int64_t in = format == WeightFormat::kAsIs ? 67 : 300;  // ten groups, the last short
    for (const bool add : {false, true}) {
      Random random(1);
      HostMatrix w(dtype, 150, in, random.Normal(150 * in));
      const std::vector<float> x = random.Normal(512 * in);
      const std::vector<float> before = random.Normal(512 * 150);
      ExpectSameBitsEverywhere(
          [&, dtype = dtype, format = format](Backend& backend, int64_t rows) {
            const auto packed = backend.Pack(w.view(), format).value();
            Tensor out(backend, {rows, 150}, {before.begin(), before.begin() + rows * 150});
            Tensor x_tensor(backend, {rows, in}, {x.begin(), x.begin() + rows * in});
            backend.MatMul(out, x_tensor, *packed, add);
            return out.Read();
          },
          kFewToMany);
    }
  }
}

// What is large, small or no number at all, in inputs and weights: everywhere the same.
TEST_P(MatMulBitsTest, OfBF16AtTheEndsOfItsRange) {
  constexpr int64_t kRows = 14, kIn = 31, kOut = 70;
  Random random(17);
  std::vector<float> weights = random.Normal(kOut * kIn);
  std::vector<float> x = random.Normal(kRows * kIn);
  std::vector<float> before = random.Normal(kRows * kOut);
  const float ends[] = {0x1p-126f, 0x1p-127f,        0x1.8p-133f, -0x1p-149f, 0x1p-70f,
                        0x1p127f,  -0x1.fffffep127f, -0.0f,       kInfinity,  -kInfinity};
  for (size_t i = 0; i < std::size(ends); ++i) {
    weights[3 + 37 * i] = ends[i];
    x[5 + 29 * i] = ends[i];
    before[70 * i + 60] = ends[i];
  }
  // Sums that are subnormal from the first product on.
  for (int64_t k = 0; k < kIn; ++k) {
    x[12 * kIn + k] = std::ldexp(x[12 * kIn + k], -70);
    weights[69 * kIn + k] = std::ldexp(weights[69 * kIn + k], -58);
  }
  // Just below the least normal number, which it is if rounded as a subnormal one.
  for (int64_t k = 0; k < kIn; ++k) x[13 * kIn + k] = weights[68 * kIn + k] = 0;
  x[13 * kIn + 8] = weights[68 * kIn + 8] = 0x1p-63f;
  x[13 * kIn + 9] = 0x1.8p-75f;
  weights[68 * kIn + 9] = -0x1p-76f;
  HostMatrix w(DType::kBF16, kOut, kIn, weights);
  for (const bool add : {false, true}) {
    ExpectSameBitsEverywhere(
        [&](Backend& backend, int64_t rows) {
          const auto packed = backend.Pack(w.view()).value();
          Tensor out(backend, {rows, kOut}, {before.begin(), before.begin() + rows * kOut});
          Tensor x_tensor(backend, {rows, kIn}, {x.begin(), x.begin() + rows * kIn});
          backend.MatMul(out, x_tensor, *packed, add);
          std::vector<float> values = out.Read();
          for (float& value : values) {
            EXPECT_FALSE(std::fpclassify(value) == FP_SUBNORMAL) << value;
            value = std::isnan(value) ? -1e30f : value;  // any NaN is one
          }
          return values;
        },
        {1, 3, 7, kRows});
  }
}

// The CPU holds the inputs of products with 8-bit weights with 8 bits, a scale for every 32.
TEST_P(MatMulBitsTest, Int8HoldsItsInputsByGroups) {
  constexpr int64_t kRows = 6, kIn = 131, kOut = 37;
  Random random(14);
  HostMatrix w(DType::kF32, kOut, kIn, random.Normal(kOut * kIn));
  std::vector<float> x = random.Normal(kRows * kIn);
  for (int64_t k = 64; k < 96; ++k) x[k] *= 1000.0f;  // one group's size is not its neighbours'
  for (const std::string& name : {std::string("cpu-reference"), GetParam()}) {
    const auto backend = Make(name, 1);
    const auto packed = backend->Pack(w.view(), WeightFormat::kInt8).value();
    EXPECT_EQ(packed->bytes(), 3 * 16 * (5 * 32 + 4)) << "whole panels of whole groups, and scales";
    Tensor out(*backend, {kRows, kOut});
    backend->MatMul(out, Tensor(*backend, {kRows, kIn}, x), *packed, false);
    const std::vector<float> got = out.Read();
    for (int64_t i = 0; i < kRows * kOut; ++i) {
      const std::vector<double> weights = AsInt8Weights(w.values.data() + i % kOut * kIn, kIn);
      const std::vector<double> inputs = AsInt8Inputs(x.data() + i / kOut * kIn, kIn);
      double want = 0, magnitude = 0;
      for (int64_t k = 0; k < kIn; ++k) {
        want += weights[k] * inputs[k];
        magnitude += std::abs(weights[k] * inputs[k]);
      }
      ASSERT_NEAR(got[i], want, 1e-6 * magnitude) << name << ' ' << i;
    }
  }
}

// An input that is no number makes its row none, and no other.
TEST_P(MatMulBitsTest, WholeNumbersKeepWhatIsNoNumberInItsRow) {
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    HostMatrix w(DType::kF32, 17, 40, Random(15).Normal(17 * 40));
    std::vector<float> x = Random(16).Normal(3 * 40);
    x[33] = kNaN;
    x[40 + 2] = kInfinity;
    for (const std::string& name : {std::string("cpu-reference"), GetParam()}) {
      const auto backend = Make(name, 1);
      const auto packed = backend->Pack(w.view(), format).value();
      Tensor out(*backend, {3, 17});
      backend->MatMul(out, Tensor(*backend, {3, 40}, x), *packed, false);
      const std::vector<float> got = out.Read();
      for (int64_t i = 0; i < 3 * 17; ++i) EXPECT_EQ(std::isfinite(got[i]), i >= 34) << name << i;
    }
  }
}

void MatMulBitsTest::CheckShortShapes(WeightFormat format) {
  for (int64_t out_features = 1; out_features <= 70; ++out_features) {
    Random random(static_cast<uint32_t>(out_features));
    HostMatrix w(DType::kF32, out_features, 9, random.Normal(out_features * 9));
    const std::vector<float> x = random.Normal(7 * 9);
    const auto run = [&](const std::string& name, int64_t rows) {
      const auto backend = Make(name, 1);
      const auto packed = backend->Pack(w.view(), format).value();
      Tensor out(*backend, {rows, out_features});
      backend->MatMul(out, Tensor(*backend, {rows, 9}, {x.begin(), x.begin() + rows * 9}), *packed,
                      false);
      return out.Read();
    };
    for (int64_t rows = 1; rows <= 7; ++rows) {
      ASSERT_TRUE(SameBits(run(GetParam(), rows), run("cpu-reference", rows))) << out_features;
    }
  }
}

TEST_P(MatMulBitsTest, OfEveryShortShape) {
  CheckShortShapes(WeightFormat::kAsIs);
  CheckShortShapes(WeightFormat::kInt8);
  CheckShortShapes(WeightFormat::kInt4);
}

}  // namespace
}  // namespace catserve

// Weights of E4M3: held with a scale for each output, multiplied by rows that are held with one of
// their own where there are more than eight.
#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "kernels/float8.h"
#include "tests/kernels/cuda/tolerance.h"
#include "tests/kernels/device.h"
#include "tests/kernels/held_values.h"

namespace catserve {
namespace {

using cuda::testing::kPlainRows;
using cuda::testing::kProducts;
using cuda::testing::kProductsOfE4M3;
using cuda::testing::RelativeError;
using testing::HostMatrix;
using testing::kInfinity;
using testing::kNaN;
using testing::LargestMagnitude;
using testing::OnEveryBackend;
using testing::Random;
using testing::Tensor;

// What is left of numbers that are held as E4M3 with one scale.
std::vector<float> AsE4M3(const float* x, int64_t count) {
  const float scale = LargestMagnitude(x, count) / kE4M3Max;
  std::vector<float> held;
  for (int64_t k = 0; k < count; ++k) held.push_back(FloatFromE4M3(E4M3FromFloat(x[k] / scale)));
  for (float& number : held) number *= scale;
  return held;
}

struct Shape {
  int64_t rows, in, outs;
};

// w x by numbers as they are held.
std::vector<float> Expected(const Shape& s, const std::vector<float>& w,
                            const std::vector<float>& x, bool quantized) {
  std::vector<float> want;
  for (int64_t i = 0; i < s.rows * s.outs; ++i) {
    const float* row = x.data() + i / s.outs * s.in;
    const auto weights = AsE4M3(w.data() + i % s.outs * s.in, s.in);
    const auto inputs = quantized ? AsE4M3(row, s.in) : std::vector<float>(row, row + s.in);
    double sum = 0;
    for (int64_t k = 0; k < s.in; ++k) sum += double{weights[k]} * inputs[k];
    want.push_back(static_cast<float>(sum));
  }
  return want;
}

class Float8Contract : public OnEveryBackend {
 protected:
  void SetUp() override {
    OnEveryBackend::SetUp();
    HostMatrix w(DType::kF32, 1, 1, {1});
    const absl::Status status = backend_->Pack(w.view(), WeightFormat::kE4M3).status();
    if (absl::IsUnimplemented(status)) GTEST_SKIP() << status;
  }

  // x of one type into F32, added to F32 and, from 16 bits, into them.
  void Check(const Shape& s, DType type) {
    SCOPED_TRACE(::testing::Message()
                 << Name(type) << ' ' << s.rows << 'x' << s.in << 'x' << s.outs);
    Random random(static_cast<uint32_t>(s.rows * 31 + s.in));
    HostMatrix w(DType::kF32, s.outs, s.in, random.Normal(s.outs * s.in));
    for (int64_t k = 0; k < s.in; ++k) w.values[k] *= 1000;  // outputs have scales of their own
    HostMatrix x(type, s.rows, s.in, random.Normal(s.rows * s.in));
    const auto packed = backend_->Pack(w.view(), WeightFormat::kE4M3).value();
    EXPECT_EQ(packed->activations(), DType::kBF16);
    EXPECT_LE(packed->bytes(), s.outs * ((s.in + 15) / 16 * 16 + 4)) << "8 bits and a scale";
    Tensor inputs(*backend_, type, {s.rows, s.in});
    inputs.Write(x.view().data, s.rows * s.in * SizeOf(type));
    // F32 goes the way of many rows, as BF16.
    const HostMatrix taken(DType::kBF16, s.rows, s.in, x.values);
    // The library takes outputs by 16, our kernel rows as they are.
    const bool many = (s.rows > 8 || type == DType::kF32) && s.outs % 16 == 0;
    const Tensor out(*backend_, {s.rows, s.outs});
    backend_->MatMul(out, inputs, *packed, /*add=*/false);
    const std::vector<float> once = out.Read();
    // The library of a card may refuse a shape, whose rows are then multiplied as they are.
    const bool on_card =
        std::string_view(backend_->Description()).find("emulated") == std::string_view::npos;
    const double tolerance = (on_card && many ? kProductsOfE4M3 : kProducts).Of(type);
    std::vector<float> want = Expected(s, w.values, taken.values, many);
    if (on_card && many && RelativeError(once, want) > tolerance) {
      want = Expected(s, w.values, taken.values, false);
    }
    EXPECT_LT(RelativeError(once, want), tolerance);
    backend_->MatMul(out, inputs, *packed, /*add=*/true);
    std::vector<float> twice = want;
    for (float& number : twice) number *= 2;
    EXPECT_LT(RelativeError(out.Read(), twice), tolerance);
    if (type == DType::kF32) return;
    const Tensor narrow(*backend_, type, {s.rows, s.outs});
    backend_->MatMul(narrow, inputs, *packed, /*add=*/false);
    std::vector<float> got;
    for (const uint16_t bits : narrow.ReadAs<uint16_t>()) got.push_back(FloatFromBF16(bits));
    EXPECT_LT(RelativeError(got, want), kPlainRows.Of(type));
  }
};

TEST_P(Float8Contract, OutputsHaveScalesAndManyRowsToo) {
  for (const DType type : {DType::kBF16, DType::kF32}) {
    for (const int64_t rows : {1, 2, 3, 8, 9, 40}) Check({rows, 72, 40}, type);
    Check({5, 131, 17}, type);
    Check({11, 131, 17}, type);  // lies in rows that end with zeros
  }
}

TEST_P(Float8Contract, OfZerosIsZeroAndOfNoNumberIsNone) {
  std::vector<float> values(3 * 16, 1.0f);
  std::fill_n(values.begin(), 16, 0.0f);
  values[37] = kInfinity;
  HostMatrix w(DType::kF32, 3, 16, values);
  const auto packed = backend_->Pack(w.view(), WeightFormat::kE4M3).value();
  std::vector<float> x(16 * 16, 1.0f);
  std::fill_n(x.begin(), 16, 0.0f);
  x[16] = kNaN;
  x[37] = kInfinity;
  const Tensor out(*backend_, {16, 3});
  backend_->MatMul(out, Tensor(*backend_, {16, 16}, x), *packed, /*add=*/false);
  const std::vector<float> got = out.Read();
  EXPECT_EQ(got[0], 0);
  EXPECT_EQ(got[1], 0) << "a row of zeros has no largest number to divide by";
  // Where infinities are not held with 8 bits, a product with one is one or none.
  for (const int i : {2, 3, 4, 5, 6, 7, 8, 11}) EXPECT_FALSE(std::isfinite(got[i])) << i;
  EXPECT_EQ(got[9], 0);
  EXPECT_NEAR(got[10], 16, 1e-4) << "the rows after it are as if it were not there";
}

CATSERVE_ON_EVERY_BACKEND(Float8Contract);

}  // namespace
}  // namespace catserve

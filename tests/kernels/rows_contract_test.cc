// Operations on rows against double precision: gathering, norms, products, gates.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <tuple>

#include "absl/status/status.h"
#include "tests/kernels/device.h"
#include "tests/kernels/held_values.h"

namespace catserve {
namespace {

using testing::AsInt4;
using testing::AsInt8Inputs;
using testing::AsInt8Weights;
using testing::HostMatrix;
using testing::InputScale;
using testing::OnEveryBackend;
using testing::Random;
using testing::Tensor;

constexpr DType kFloatTypes[] = {DType::kF32, DType::kBF16, DType::kF16};

class GatherContract : public OnEveryBackend {};
class RmsNormContract : public OnEveryBackend {};
class MatMulContract : public OnEveryBackend {};
class SiluGateContract : public OnEveryBackend {};

TEST_P(GatherContract, CopiesTheNamedRowsOfEveryTableAndDType) {
  Random random(1);
  const int64_t width = 37;
  std::vector<HostMatrix> hosts;
  std::vector<std::unique_ptr<Buffer>> buffers;
  std::vector<TensorView> tables;
  for (const DType dtype : kFloatTypes) {
    HostMatrix& host = hosts.emplace_back(dtype, 9, width, random.Normal(9 * width));
    buffers.push_back(backend_->Upload(host.view()).value());
    tables.emplace_back(buffers.back()->data(), dtype, std::initializer_list<int64_t>{9, width});
  }
  Tensor history(*backend_, DType::kI32, {4});
  const int32_t ids[] = {8, 0, 3, 5};
  history.Write(ids, sizeof(ids));
  const GatherRow rows[] = {
      {0, 2, false}, {1, 8, false}, {2, 0, false}, {1, 3, true}, {0, 0, true}};
  Tensor out(*backend_, {5, width});
  backend_->Gather(out, tables, history, rows);
  const std::vector<float> got = out.Read();
  for (int64_t i = 0; i < 5; ++i) {
    const int64_t index = rows[i].via_history ? ids[rows[i].index] : rows[i].index;
    for (int64_t d = 0; d < width; ++d) {
      const float want = hosts[rows[i].table].values[index * width + d];
      EXPECT_EQ(got[i * width + d], want) << i << ' ' << d;
    }
  }
}

TEST_P(GatherContract, TakesAnEmptyListOfRows) {
  Tensor out(*backend_, {0, 4});
  backend_->Gather(out, {}, TensorView(), {});
}

TEST_P(RmsNormContract, MatchesDoublePrecisionOnRaggedWidths) {
  for (const int64_t n : {1, 2, 7, 8, 9, 31, 128, 1537}) {
    Random random(static_cast<uint32_t>(n));
    const std::vector<float> x = random.Normal(3 * n, 5.0f);
    const std::vector<float> weight = random.Normal(n);
    Tensor out(*backend_, {3, n});
    backend_->RmsNorm(out, Tensor(*backend_, {3, n}, x), Tensor(*backend_, {n}, weight), 1e-5f);
    const std::vector<float> got = out.Read();
    for (int64_t i = 0; i < 3; ++i) {
      double squares = 0;
      for (int64_t d = 0; d < n; ++d) squares += std::pow(static_cast<double>(x[i * n + d]), 2);
      const double scale = 1 / std::sqrt(squares / n + 1e-5);
      for (int64_t d = 0; d < n; ++d) {
        const double want = weight[d] * x[i * n + d] * scale;
        ASSERT_NEAR(got[i * n + d], want, 1e-6 * std::abs(want) + 1e-9) << n << ' ' << i;
      }
    }
  }
}

TEST_P(RmsNormContract, WorksInPlaceAndOnAColumnBlock) {
  Random random(2);
  const std::vector<float> values = random.Normal(4 * 20);
  Tensor weight(*backend_, {12}, random.Normal(12));
  Tensor wide(*backend_, {4, 20}, values);
  Tensor apart(*backend_, {4, 12});
  backend_->RmsNorm(apart, wide.view().Columns(5, 12), weight, 1e-6f);
  backend_->RmsNorm(wide.view().Columns(5, 12), wide.view().Columns(5, 12), weight, 1e-6f);
  const std::vector<float> want = apart.Read();
  const std::vector<float> got = wide.Read();
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t d = 0; d < 20; ++d) {
      const bool inside = d >= 5 && d < 17;
      EXPECT_EQ(got[i * 20 + d], inside ? want[i * 12 + d - 5] : values[i * 20 + d]);
    }
  }
}

TEST_P(RmsNormContract, OfZerosIsZero) {
  Tensor x(*backend_, {1, 6}, std::vector<float>(6, 0.0f));
  backend_->RmsNorm(x, x, Tensor(*backend_, {6}, std::vector<float>(6, 2.0f)), 1e-5f);
  EXPECT_EQ(x.Read(), std::vector<float>(6, 0.0f));
}

// x as it is multiplied: the CPU rounds it to BF16 for weights of BF16, the CUDA backend more than
// eight rows to the type of weights held with 16 bits.
std::vector<float> AsMultiplied(const Backend& backend, DType weights, int64_t rows,
                                const std::vector<float>& x) {
  const bool cuda = std::string_view(backend.Description()).starts_with("cuda");
  const bool rounds = cuda ? rows > 8 : weights == DType::kBF16;
  if (!rounds) return x;
  return HostMatrix(weights, 1, static_cast<int64_t>(x.size()), x).values;
}

// [rows, in, out] and the weights' dtype.
void CheckMatMul(Backend& backend, DType dtype, int64_t rows, int64_t in, int64_t out_features) {
  SCOPED_TRACE(::testing::Message()
               << Name(dtype) << ' ' << rows << 'x' << in << 'x' << out_features);
  Random random(static_cast<uint32_t>(rows * 7919 + in * 31 + out_features));
  HostMatrix w(dtype, out_features, in, random.Normal(out_features * in));
  const std::vector<float> x = random.Normal(rows * in);
  const std::vector<float> before = random.Normal(rows * out_features);
  auto packed = backend.Pack(w.view()).value();
  EXPECT_EQ(packed->out_features(), out_features);
  EXPECT_EQ(packed->in_features(), in);
  EXPECT_GE(packed->bytes(), out_features * in * (dtype == DType::kF32 ? 4 : 2));
  Tensor x_tensor(backend, {rows, in}, x);
  Tensor set(backend, {rows, out_features});
  Tensor added(backend, {rows, out_features}, before);
  backend.MatMul(set, x_tensor, *packed, /*add=*/false);
  backend.MatMul(added, x_tensor, *packed, /*add=*/true);
  const std::vector<float> got = set.Read();
  const std::vector<float> got_added = added.Read();
  const std::vector<float> multiplied = AsMultiplied(backend, dtype, rows, x);
  for (int64_t i = 0; i < rows * out_features; ++i) {
    double want = 0, magnitude = 0;
    for (int64_t k = 0; k < in; ++k) {
      const double weight = w.values[i % out_features * in + k];
      const double term = multiplied[i / out_features * in + k] * weight;
      want += term;
      magnitude += std::abs(term);
    }
    const double tolerance = 1e-7 * magnitude * std::sqrt(static_cast<double>(in)) + 1e-30;
    ASSERT_NEAR(got[i], want, tolerance) << i;
    ASSERT_EQ(got_added[i], before[i] + got[i]) << i;
  }
}

TEST_P(MatMulContract, MatchesDoublePrecisionOnRaggedShapes) {
  for (const DType dtype : kFloatTypes) {
    for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 13}) {
      CheckMatMul(*backend_, dtype, rows, 33, 51);
    }
    for (const int64_t in : {1, 2, 65, 300}) CheckMatMul(*backend_, dtype, 5, in, 16);
    for (const int64_t out : {1, 15, 17, 64, 65, 129}) CheckMatMul(*backend_, dtype, 2, 40, out);
    CheckMatMul(*backend_, dtype, 101, 24, 70);
  }
}

// Leaves a backend's own memory full of a product whose inputs end with a group of 32.
void MultiplyBefore(Backend& backend, WeightFormat format) {
  Random random(8);
  HostMatrix w(DType::kF32, 16, 160, random.Normal(16 * 160));
  const auto packed = backend.Pack(w.view(), format).value();
  Tensor out(backend, {19, 16});
  backend.MatMul(out, Tensor(backend, {19, 160}, random.Normal(19 * 160, 50.0f)), *packed, false);
  backend.Synchronize();
}

// Held as the header says, so that the product of the numbers held is exact but for its sums, and
// but for inputs held with 8 bits: each is at most half its group's scale away.
TEST_P(MatMulContract, Int8HoldsEachOutputsWeightsAsWholeNumbersOfItsScale) {
  for (const DType dtype : kFloatTypes) {
    constexpr int64_t kRows = 19, kIn = 131, kOut = 37;
    Random random(9);
    HostMatrix w(dtype, kOut, kIn, random.Normal(kOut * kIn));
    const auto packed = backend_->Pack(w.view(), WeightFormat::kInt8).value();
    EXPECT_GE(packed->bytes(), kOut * kIn + kOut * 4) << "with their scales";
    EXPECT_LT(packed->bytes(), kOut * kIn * 2);
    MultiplyBefore(*backend_, WeightFormat::kInt8);
    const std::vector<float> x = random.Normal(kRows * kIn);
    Tensor out(*backend_, {kRows, kOut});
    backend_->MatMul(out, Tensor(*backend_, {kRows, kIn}, x), *packed, false);
    const std::vector<float> got = out.Read();
    for (int64_t i = 0; i < kRows * kOut; ++i) {
      const std::vector<double> weights = AsInt8Weights(w.values.data() + i % kOut * kIn, kIn);
      const float* row = x.data() + i / kOut * kIn;
      double want = 0, margin = 1e-4;
      for (int64_t k = 0; k < kIn; ++k) {
        const int64_t group = k / 32 * 32;
        const float scale = InputScale(row + group, std::min<int64_t>(32, kIn - group));
        want += row[k] * weights[k];
        margin += scale / 2 * std::abs(weights[k]);
      }
      ASSERT_NEAR(got[i], want, margin) << Name(dtype) << ' ' << i;
    }
  }
}

// Inputs that are whole numbers of their group's scale lose nothing, on any backend.
TEST_P(MatMulContract, Int8IsExactForInputsThatEightBitsHold) {
  constexpr int64_t kRows = 7, kIn = 300, kOut = 37;
  Random random(13);
  HostMatrix w(DType::kF32, kOut, kIn, random.Normal(kOut * kIn));
  const auto packed = backend_->Pack(w.view(), WeightFormat::kInt8).value();
  std::vector<float> x = random.Normal(kRows * kIn, 40.0f);
  for (float& value : x) value = std::clamp(std::nearbyint(value), -127.0f, 127.0f);
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t k = 0; k < kIn; k += 32) x[r * kIn + k] = r % 2 == 0 ? 127.0f : -127.0f;
  }
  Tensor out(*backend_, {kRows, kOut});
  backend_->MatMul(out, Tensor(*backend_, {kRows, kIn}, x), *packed, false);
  const std::vector<float> got = out.Read();
  for (int64_t i = 0; i < kRows * kOut; ++i) {
    const std::vector<double> weights = AsInt8Weights(w.values.data() + i % kOut * kIn, kIn);
    double want = 0;
    for (int64_t k = 0; k < kIn; ++k) want += x[i / kOut * kIn + k] * weights[k];
    ASSERT_NEAR(got[i], want, 2e-3) << i << ", where sums are around 700";
  }
}

TEST_P(MatMulContract, Int8OfZerosIsZeroAndOfNoNumberIsNone) {
  std::vector<float> values(3 * 8, 0.0f);
  values[11] = std::numeric_limits<float>::infinity();
  values[19] = std::numeric_limits<float>::quiet_NaN();
  HostMatrix w(DType::kF32, 3, 8, values);
  const auto packed = backend_->Pack(w.view(), WeightFormat::kInt8).value();
  Tensor out(*backend_, {1, 3});
  backend_->MatMul(out, Tensor(*backend_, {1, 8}, std::vector<float>(8, 1.0f)), *packed, false);
  EXPECT_EQ(out.Read()[0], 0.0f);
  EXPECT_TRUE(std::isnan(out.Read()[1]));
  EXPECT_TRUE(std::isnan(out.Read()[2]));
}

TEST_P(MatMulContract, Int4HoldsWeightsAndInputsByGroups) {
  for (const DType dtype : kFloatTypes) {
    constexpr int64_t kIn = 131, kOut = 37, kRows = 6;  // the last group is short, the last panel
    Random random(10);
    std::vector<float> values = random.Normal(kOut * kIn);
    // Far from zero, the minimum's rounding is more than a step.
    for (int64_t k = 0; k < kIn; ++k) values[k] = 3 + values[k] / 100;
    HostMatrix w(dtype, kOut, kIn, values);
    auto made = backend_->Pack(w.view(), WeightFormat::kInt4);
    if (absl::IsUnimplemented(made.status())) GTEST_SKIP() << made.status();
    const auto packed = *std::move(made);
    EXPECT_EQ(packed->bytes(), 3 * 16 * 5 * (16 + 4)) << "5 bits a weight";
    MultiplyBefore(*backend_, WeightFormat::kInt4);
    const std::vector<float> x = random.Normal(kRows * kIn);
    Tensor out(*backend_, {kRows, kOut});
    backend_->MatMul(out, Tensor(*backend_, {kRows, kIn}, x), *packed, false);
    const std::vector<float> got = out.Read();
    for (int64_t i = 0; i < kRows * kOut; ++i) {
      const std::vector<double> inputs = AsInt8Inputs(x.data() + i / kOut * kIn, kIn);
      double want = 0;
      for (int64_t k = 0; k < kIn; k += 32) {
        const int64_t count = std::min<int64_t>(32, kIn - k);
        const std::vector<double> weights = AsInt4(w.values.data() + i % kOut * kIn + k, count);
        for (int64_t j = 0; j < count; ++j) want += weights[j] * inputs[k + j];
      }
      ASSERT_NEAR(got[i], want, 1e-4) << Name(dtype) << ' ' << i;
    }
  }
}

TEST_P(MatMulContract, Int4OfEqualWeightsIsExactAndOfNoNumberIsNone) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  std::vector<float> values(4 * 40, 0.5f);
  values[40 + 33] = std::numeric_limits<float>::infinity();
  values[80] = std::numeric_limits<float>::quiet_NaN();
  values[120] = kLargest;  // their distance is infinite
  values[121] = -kLargest;
  HostMatrix w(DType::kF32, 4, 40, values);
  auto made = backend_->Pack(w.view(), WeightFormat::kInt4);
  if (absl::IsUnimplemented(made.status())) GTEST_SKIP() << made.status();
  const auto packed = *std::move(made);
  Tensor out(*backend_, {1, 4});
  std::vector<float> x(40, 0.0f);
  x[0] = 127;
  backend_->MatMul(out, Tensor(*backend_, {1, 40}, x), *packed, false);
  EXPECT_EQ(out.Read()[0], 63.5f);
  for (int o = 1; o < 4; ++o) EXPECT_TRUE(std::isnan(out.Read()[o])) << o;
}

TEST_P(MatMulContract, ReadsAndWritesColumnBlocks) {
  Random random(4);
  HostMatrix w(DType::kF32, 19, 10, random.Normal(190));
  auto packed = backend_->Pack(w.view()).value();
  const std::vector<float> wide_x = random.Normal(7 * 30);
  Tensor x(*backend_, {7, 30}, wide_x);
  Tensor out(*backend_, {7, 40}, std::vector<float>(7 * 40, -3.0f));
  backend_->MatMul(out.view().Columns(11, 19), x.view().Columns(20, 10), *packed, false);
  const std::vector<float> got = out.Read();
  for (int64_t r = 0; r < 7; ++r) {
    for (int64_t c = 0; c < 40; ++c) {
      double want = -3.0;
      if (c >= 11 && c < 30) {
        want = 0;
        for (int64_t k = 0; k < 10; ++k) {
          want += double{wide_x[r * 30 + 20 + k]} * w.values[(c - 11) * 10 + k];
        }
      }
      ASSERT_NEAR(got[r * 40 + c], want, 1e-5) << r << ' ' << c;
    }
  }
}

TEST_P(MatMulContract, TheSourceOfAPackedMatrixMayChange) {
  HostMatrix w(DType::kF32, 2, 2, {1, 2, 3, 4});
  auto packed = backend_->Pack(w.view()).value();
  std::fill(w.values.begin(), w.values.end(), 0.0f);
  Tensor out(*backend_, {1, 2});
  backend_->MatMul(out, Tensor(*backend_, {1, 2}, {1, 10}), *packed, false);
  EXPECT_EQ(out.Read(), (std::vector<float>{21, 43}));
}

TEST_P(SiluGateContract, MatchesDoublePrecisionOverTheWholeRange) {
  Random random(5);
  for (const int64_t f : {1, 7, 8, 33, 256}) {
    std::vector<float> x = random.Normal(3 * 2 * f, 8.0f);
    x[0] = 200.0f;       // e^-x underflows
    x[2 * f] = -200.0f;  // e^-x overflows
    Tensor out(*backend_, {3, f});
    backend_->SiluGate(out, Tensor(*backend_, {3, 2 * f}, x));
    const std::vector<float> got = out.Read();
    for (int64_t i = 0; i < 3 * f; ++i) {
      const double gate = x[i / f * 2 * f + i % f];
      const double want = gate / (1 + std::exp(-gate)) * x[i / f * 2 * f + f + i % f];
      ASSERT_NEAR(got[i], want, 1e-6 * std::abs(want) + 1e-30) << f << ' ' << i;
    }
  }
}

CATSERVE_ON_EVERY_BACKEND(GatherContract);
CATSERVE_ON_EVERY_BACKEND(RmsNormContract);
CATSERVE_ON_EVERY_BACKEND(MatMulContract);
CATSERVE_ON_EVERY_BACKEND(SiluGateContract);

}  // namespace
}  // namespace catserve

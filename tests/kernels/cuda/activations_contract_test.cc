// Activations of 16 bits: every operation that takes them, against itself in F32 on the same
// numbers. What F32 must give, the other suites say.
#include <algorithm>
#include <cmath>
#include <span>

#include "tests/kernels/attention_scene.h"
#include "tests/kernels/cuda/tolerance.h"

namespace catserve {
namespace {

using cuda::testing::kAttentionRows;
using cuda::testing::kPlainRows;
using cuda::testing::kProducts;
using cuda::testing::RelativeError;
using testing::AttentionScene;
using testing::AttentionShape;
using testing::HeldOf;
using testing::HostMatrix;
using testing::kNaN;
using testing::OnEveryBackend;
using testing::Random;
using testing::SpecOf;
using testing::Tensor;

constexpr DType kNarrowTypes[] = {DType::kBF16, DType::kF16};

// A matrix of activations.
class Rows {
 public:
  Rows(Backend& backend, DType type, int64_t width, const std::vector<float>& values)
      : host_(type, std::ssize(values) / width, width, values),
        tensor_(backend, type, {host_.rows, width}) {
    tensor_.Write(host_.view().data, host_.rows * width * SizeOf(type));
  }
  // Poisoned with NaN.
  Rows(Backend& backend, DType type, int64_t rows, int64_t width)
      : Rows(backend, type, width, std::vector<float>(rows * width, kNaN)) {}

  operator const TensorView&() const { return tensor_.view(); }
  const TensorView& view() const { return tensor_.view(); }
  const std::vector<float>& given() const { return host_.values; }  // as the type holds them

  std::vector<float> Read() const {
    if (host_.dtype == DType::kF32) return tensor_.Read();
    std::vector<float> values;
    for (const uint16_t bits : tensor_.ReadAs<uint16_t>()) {
      values.push_back(host_.dtype == DType::kBF16 ? FloatFromBF16(bits) : FloatFromF16(bits));
    }
    return values;
  }

 private:
  HostMatrix host_;
  Tensor tensor_;
};

// The largest relative error of a row, or of a head.
double Worst(const std::vector<float>& got, const std::vector<float>& want, int64_t width) {
  EXPECT_EQ(got.size(), want.size());
  double worst = 0;
  for (size_t i = 0; i < want.size(); i += width) {
    worst = std::max(
        worst, RelativeError(std::span(got).subspan(i, width), std::span(want).subspan(i, width)));
  }
  return worst;
}

class ActivationsContract : public OnEveryBackend {};

TEST_P(ActivationsContract, AreWhatWeightsOf16BitsTake) {
  for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
    HostMatrix w(type, 2, 3, std::vector<float>(6, 1.0f));
    EXPECT_EQ(backend_->Pack(w.view()).value()->activations(), type);
    EXPECT_EQ(backend_->Pack(w.view(), WeightFormat::kInt8).value()->activations(), DType::kF32);
  }
}

TEST_P(ActivationsContract, NormsNarrowTheResidualStream) {
  for (const DType type : kNarrowTypes) {
    for (const int64_t width : {1, 37, 256}) {
      Random random(21);
      const Rows x(*backend_, DType::kF32, width, random.Normal(5 * width, 3.0f));
      const Tensor weight(*backend_, {width}, random.Normal(width));
      const Rows narrow(*backend_, type, 5, width), wide(*backend_, DType::kF32, 5, width);
      backend_->RmsNorm(narrow, x, weight, 1e-5f);
      backend_->RmsNorm(wide, x, weight, 1e-5f);
      EXPECT_LT(Worst(narrow.Read(), wide.Read(), width), kPlainRows.Of(type)) << Name(type);
    }
  }
}

TEST_P(ActivationsContract, F16IsCutOffWhereAnInfinityWouldSpoilItsRow) {
  const Rows x(*backend_, DType::kF32, 2, {1, -1, kNaN, 1});
  const Tensor weight(*backend_, {2}, {1e6, 1e6});
  const Rows normed(*backend_, DType::kF16, 2, 2), gated(*backend_, DType::kF16, 1, 1);
  backend_->RmsNorm(normed, x, weight, 0);
  const std::vector<float> got = normed.Read();
  EXPECT_EQ(got[0], 65504);
  EXPECT_EQ(got[1], -65504);
  EXPECT_TRUE(std::isnan(got[2]));
  backend_->SiluGate(gated, Rows(*backend_, DType::kF16, 2, {6e4, 6e4}));
  EXPECT_EQ(gated.Read()[0], 65504);
}

// rows of x by weights of one type: into the type, into F32, and added to F32.
void CheckMatMul(Backend& backend, DType type, int64_t rows, int64_t in, int64_t out_features) {
  SCOPED_TRACE(::testing::Message()
               << Name(type) << ' ' << rows << 'x' << in << 'x' << out_features);
  Random random(static_cast<uint32_t>(rows * 31 + in));
  HostMatrix w(type, out_features, in, random.Normal(out_features * in));
  const auto packed = backend.Pack(w.view()).value();
  // Columns of wider rows, as queries are of qkv.
  const Rows x(backend, type, in + 8, random.Normal(rows * (in + 8)));
  const std::vector<float> before = random.Normal(rows * out_features);
  const Rows narrow(backend, type, rows, out_features);
  const Rows wide(backend, DType::kF32, rows, out_features);
  const Rows added(backend, DType::kF32, out_features, before);
  const TensorView columns = x.view().Columns(8, in);
  backend.MatMul(narrow, columns, *packed, /*add=*/false);
  backend.MatMul(wide, columns, *packed, /*add=*/false);
  backend.MatMul(added, columns, *packed, /*add=*/true);
  std::vector<float> want, sums;
  for (int64_t i = 0; i < rows * out_features; ++i) {
    double sum = 0;
    for (int64_t k = 0; k < in; ++k) {
      sum += double{x.given()[i / out_features * (in + 8) + 8 + k]} *
             w.values[i % out_features * in + k];
    }
    want.push_back(static_cast<float>(sum));
    sums.push_back(before[i] + want.back());
  }
  EXPECT_LT(Worst(wide.Read(), want, out_features), kProducts.Of(type));
  EXPECT_LT(Worst(added.Read(), sums, out_features), kProducts.Of(type));
  EXPECT_LT(Worst(narrow.Read(), want, out_features), kPlainRows.Of(type));
}

TEST_P(ActivationsContract, ProductsReadAndWriteThem) {
  for (const DType type : kNarrowTypes) {
    for (const int64_t rows : {1, 2, 3, 8, 9, 40}) CheckMatMul(*backend_, type, rows, 72, 40);
    CheckMatMul(*backend_, type, 5, 131, 17);
    CheckMatMul(*backend_, type, 11, 131, 17);
  }
}

TEST_P(ActivationsContract, GatesStayWithinThem) {
  for (const DType type : kNarrowTypes) {
    const Rows given(*backend_, type, 2 * 33, Random(22).Normal(3 * 2 * 33, 8.0f));
    const Rows same(*backend_, DType::kF32, 2 * 33, given.given());
    const Rows narrow(*backend_, type, 3, 33), wide(*backend_, DType::kF32, 3, 33);
    backend_->SiluGate(narrow, given);
    backend_->SiluGate(wide, same);
    EXPECT_LT(Worst(narrow.Read(), wide.Read(), 33), kPlainRows.Of(type)) << Name(type);
  }
}

// What PrepareHeads leaves in qkv, and in KV memory as bytes.
struct Prepared {
  std::vector<float> qkv;
  std::vector<uint8_t> written;
};

Prepared Prepare(Backend& backend, const Rows& qkv, DType kv_type, int32_t dim) {
  Random random(23);
  const Tensor q_norm(backend, {dim}, random.Normal(dim));
  const Tensor rotary(backend, {4, dim}, random.Normal(4 * dim));
  const Tensor pool(backend, kv_type, {2, 1, 2, kKvPageEntries * dim});
  const Tensor scales(backend, DType::kBF16, {2, 1, 2, kKvPageEntries});
  KvLayer kv{pool.view().data, kv_type, 2, 1, dim};
  if (KvScaleBytes(kv_type) > 0) kv.scales = static_cast<uint16_t*>(scales.view().data);
  HeadSpec spec{.heads = 2, .kv_heads = 1, .head_dim = dim, .norm_eps = 1e-5f};
  spec.q_norm = q_norm;
  spec.k_norm = q_norm;
  spec.rotary = rotary;
  backend.PrepareHeads(qkv, spec, std::vector<int32_t>{3, 0, 1}, &kv,
                       std::vector<int64_t>{17, -1, 2});
  Prepared prepared{qkv.Read(), pool.ReadAs<uint8_t>()};
  const std::vector<uint8_t> held = scales.ReadAs<uint8_t>();
  prepared.written.insert(prepared.written.end(), held.begin(), held.end());
  return prepared;
}

// KV memory gets what was computed, not what qkv holds of it: the same as from F32.
TEST_P(ActivationsContract, HeadsArePreparedInPlaceAndWrittenAsFromF32) {
  for (const DType type : kNarrowTypes) {
    for (const DType kv_type : HeldOf(*backend_)) {
      for (const int32_t dim : {6, 64, 130}) {
        const Rows given(*backend_, type, 4 * dim, Random(24).Normal(3 * 4 * dim));
        const Rows same(*backend_, DType::kF32, 4 * dim, given.given());
        const Prepared narrow = Prepare(*backend_, given, kv_type, dim);
        const Prepared wide = Prepare(*backend_, same, kv_type, dim);
        EXPECT_LT(Worst(narrow.qkv, wide.qkv, dim), kPlainRows.Of(type)) << Name(type);
        EXPECT_EQ(narrow.written, wide.written) << Name(type) << " into " << Name(kv_type);
      }
    }
  }
}

// A prompt of 20 rows, a row that is split, one that is not and one that sees nothing.
void CheckPagedAttention(Backend& backend, DType type, const AttentionShape& shape) {
  SCOPED_TRACE(::testing::Message()
               << Name(type) << " over " << Name(shape.dtype) << ", heads of " << shape.head_dim);
  AttentionScene scene(backend, shape, 600, 25);
  std::vector<AttentionRow> rows = {{.page = scene.Place(0, 600), .entries = 600},
                                    {.page = scene.Place(8, 9), .entries = 9},
                                    {.entries = 0}};
  const int32_t prompt = scene.Place(40, 20);
  for (int32_t n = 1; n <= 20; ++n) rows.push_back({.page = prompt, .entries = n});
  const int64_t width = int64_t{shape.heads} * shape.head_dim;
  const auto count = std::ssize(rows);
  const Rows q(backend, type, width, Random(26).Normal(count * width, 2.0f));
  const Rows same(backend, DType::kF32, width, q.given());
  const Rows narrow(backend, type, count, width), wide(backend, DType::kF32, count, width);
  backend.PagedAttention(narrow, q, SpecOf(shape), scene.layer(), rows, scene.page_ids());
  backend.PagedAttention(wide, same, SpecOf(shape), scene.layer(), rows, scene.page_ids());
  EXPECT_LT(Worst(narrow.Read(), wide.Read(), shape.head_dim), kAttentionRows.Of(type));
}

TEST_P(ActivationsContract, PagedAttentionReadsAndWritesThem) {
  for (const DType type : kNarrowTypes) {
    for (const DType kv : HeldOf(*backend_)) {
      CheckPagedAttention(*backend_, type, {2, 1, 64, kv});
    }
    CheckPagedAttention(*backend_, type, {1, 1, 128, DType::kBF16});
    CheckPagedAttention(*backend_, type, {4, 1, 64, DType::kI8});
    CheckPagedAttention(*backend_, type, {2, 2, 10, DType::kBF16});
    CheckPagedAttention(*backend_, type, {2, 2, 24, DType::kF32});
  }
}

TEST_P(ActivationsContract, BlockAttentionReadsAndWritesThem) {
  const std::vector<RowBlock> blocks = {{0, 18}, {18, 6}, {24, 1}};
  for (const DType type : kNarrowTypes) {
    for (const int32_t dim : {10, 24, 64}) {
      const HeadSpec spec{.heads = 2, .kv_heads = 1, .head_dim = dim};
      const Rows given(*backend_, type, 4 * dim, Random(27).Normal(25 * 4 * dim));
      const Rows same(*backend_, DType::kF32, 4 * dim, given.given());
      const Rows narrow(*backend_, type, 25, 2 * dim), wide(*backend_, DType::kF32, 25, 2 * dim);
      backend_->BlockAttention(narrow, given, spec, blocks);
      backend_->BlockAttention(wide, same, spec, blocks);
      EXPECT_LT(Worst(narrow.Read(), wide.Read(), dim), kAttentionRows.Of(type))
          << Name(type) << ", heads of " << dim;
    }
  }
}

CATSERVE_ON_EVERY_BACKEND(ActivationsContract);

}  // namespace
}  // namespace catserve

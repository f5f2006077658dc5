// What is done to heads before attention, and how they are written into KV memory, against double
// precision.
#include <cmath>

#include "tests/kernels/device.h"
#include "tests/kernels/kv_types.h"

namespace catserve {
namespace {

using testing::AsStored;
using testing::FromEightBits;
using testing::HeldOf;
using testing::kNaN;
using testing::OnEveryBackend;
using testing::Random;
using testing::ScaleBitsOf;
using testing::Tensor;

class PrepareHeadsContract : public OnEveryBackend {};

// [positions, dim]: cos in the first half of a row, sin in the second.
std::vector<float> RotaryTable(int64_t positions, int64_t dim) {
  std::vector<float> table(positions * dim);
  for (int64_t r = 0; r < positions; ++r) {
    for (int64_t i = 0; i < dim / 2; ++i) {
      const double angle = r * std::pow(10000.0, -2.0 * i / dim);
      table[r * dim + i] = static_cast<float>(std::cos(angle));
      table[r * dim + dim / 2 + i] = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

// One head by the equations of the golden README, section 2, in double precision.
std::vector<double> PreparedHead(const float* head, const float* norm, const float* rotary,
                                 int64_t dim) {
  std::vector<double> x(head, head + dim);
  if (norm != nullptr) {
    double squares = 0;
    for (const double value : x) squares += value * value;
    for (int64_t d = 0; d < dim; ++d) x[d] *= norm[d] / std::sqrt(squares / dim + 1e-5);
  }
  std::vector<double> y(dim);
  for (int64_t i = 0, half = dim / 2; i < half; ++i) {
    y[i] = x[i] * rotary[i] - x[i + half] * rotary[i + half];
    y[i + half] = x[i + half] * rotary[i] + x[i] * rotary[i + half];
  }
  return y;
}

class PreparedRows {
 public:
  PreparedRows(Backend& backend, int32_t dim, bool norm, DType dtype)
      : dim_(dim),
        norm_(norm),
        norms_(Random(21).Normal(2 * dim)),
        rotary_(RotaryTable(9, dim)),
        before_(Random(22).Normal(kRows * (kHeads + 2 * kKvHeads) * dim, 3.0f)) {
    Tensor q_norm(backend, {dim}, {norms_.begin(), norms_.begin() + dim});
    Tensor k_norm(backend, {dim}, {norms_.begin() + dim, norms_.end()});
    Tensor rotary(backend, {9, dim}, rotary_);
    Tensor qkv(backend, {kRows, (kHeads + 2 * kKvHeads) * dim}, before_);
    Tensor pool(backend, dtype, {4, kKvHeads, 2, kKvPageEntries * dim});
    Tensor scales(backend, DType::kBF16, {4, kKvHeads, 2, kKvPageEntries});
    KvLayer kv{pool.view().data, dtype, 4, kKvHeads, dim};
    if (KvScaleBytes(dtype) > 0) kv.scales = static_cast<uint16_t*>(scales.view().data);
    HeadSpec spec{.heads = kHeads, .kv_heads = kKvHeads, .head_dim = dim, .norm_eps = 1e-5f};
    spec.rotary = rotary;
    if (norm) {
      spec.q_norm = q_norm;
      spec.k_norm = k_norm;
    }
    backend.PrepareHeads(qkv, spec, kPositions, &kv, kSlots);
    after = qkv.Read();
    if (dtype == DType::kF32) {
      written = pool.Read();
    } else if (dtype == DType::kBF16) {
      for (const uint16_t bits : pool.ReadAs<uint16_t>()) written.push_back(FloatFromBF16(bits));
    } else {
      const std::vector<uint16_t> held = scales.ReadAs<uint16_t>();
      for (const uint8_t bits : pool.ReadAs<uint8_t>()) {
        const float scale = FloatFromBF16(held[written.size() / dim]);
        written.push_back(FromEightBits(dtype, bits, scale));
      }
    }
  }

  // Checks one head of one row after the operation.
  void CheckHead(int64_t row, int64_t head) const {
    const int64_t at = (row * (kHeads + 2 * kKvHeads) + head) * dim_;
    if (head >= kHeads + kKvHeads) {
      for (int64_t d = 0; d < dim_; ++d) ASSERT_EQ(after[at + d], before_[at + d]) << "a value";
      return;
    }
    const float* norm = !norm_ ? nullptr : norms_.data() + (head < kHeads ? 0 : dim_);
    const auto want =
        PreparedHead(before_.data() + at, norm, rotary_.data() + kPositions[row] * dim_, dim_);
    for (int64_t d = 0; d < dim_; ++d) {
      ASSERT_NEAR(after[at + d], want[d], 3e-6) << "row " << row << " head " << head << " " << d;
    }
  }

  static constexpr int64_t kRows = 5;
  static constexpr int32_t kHeads = 4;
  static constexpr int32_t kKvHeads = 2;
  static constexpr int32_t kPositions[kRows] = {0, 8, 3, 1, 1};
  static constexpr int64_t kSlots[kRows] = {17, -1, 0, 63, 16};

  std::vector<float> after;    // qkv
  std::vector<float> written;  // the KV memory, as F32

 private:
  int64_t dim_;
  bool norm_;
  std::vector<float> norms_, rotary_, before_;
};

TEST_P(PrepareHeadsContract, NormsAndRotatesQueriesAndKeysAndLeavesValues) {
  for (const int32_t dim : {2, 4, 6, 16, 30, 32, 64, 130}) {
    for (const bool norm : {false, true}) {
      SCOPED_TRACE(::testing::Message() << "head_dim " << dim << " norm " << norm);
      const PreparedRows rows(*backend_, dim, norm, DType::kF32);
      for (int64_t i = 0; i < rows.kRows * 8; ++i) rows.CheckHead(i / 8, i % 8);
    }
  }
}

TEST_P(PrepareHeadsContract, WritesKeysAndValuesToTheirEntriesAndNothingElse) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const int64_t dim = 12;
    const PreparedRows rows(*backend_, dim, true, dtype);
    std::vector<float> want(rows.written.size(), 0.0f);
    for (int64_t i = 0; i < rows.kRows; ++i) {
      const int64_t slot = rows.kSlots[i];
      for (int64_t at = 0; slot >= 0 && at < 2 * rows.kKvHeads * dim; ++at) {
        const int64_t part = at / (rows.kKvHeads * dim), head = at / dim % rows.kKvHeads;
        const int64_t block = (slot / 16 * rows.kKvHeads + head) * 2 + part;
        const float value = rows.after[i * 8 * dim + rows.kHeads * dim + at];
        want[(block * 16 + slot % 16) * dim + at % dim] =
            dtype == DType::kF32 ? value : FloatFromBF16(BF16FromFloat(value));
      }
    }
    EXPECT_EQ(rows.written, want) << Name(dtype);
  }
}

// With 8 bits: numbers of a scale that each head's key, and value, of an entry has for itself.
void CheckEightBits(Backend& backend, DType dtype, int32_t dim) {
  SCOPED_TRACE(::testing::Message() << Name(dtype) << ", heads of " << dim);
  const PreparedRows rows(backend, dim, true, dtype);
  std::vector<float> want(rows.written.size(), 0.0f);
  for (int64_t i = 0; i < rows.kRows; ++i) {
    const int64_t slot = rows.kSlots[i];
    for (int64_t at = 0; slot >= 0 && at < 2 * rows.kKvHeads; ++at) {
      const KvPart part = at < rows.kKvHeads ? kKey : kValue;
      const std::span<const float> head(rows.after.data() + (i * 8 + rows.kHeads + at) * dim, dim);
      float largest = 0;
      for (const float number : head) largest = std::max(largest, std::abs(number));
      const float most = KvMost(dtype) * FloatFromBF16(ScaleBitsOf(dtype, head));
      EXPECT_LE(largest, most) << "the scale is rounded up";
      EXPECT_GE(largest, most * (126.0f / 127)) << "and no further than it must";
      const int64_t index =
          KvEntryIndex(rows.kKvHeads, {slot / 16, at % rows.kKvHeads, part, slot % 16});
      std::ranges::copy(AsStored(dtype, head), want.begin() + index * dim);
    }
  }
  EXPECT_EQ(rows.written, want);
}

TEST_P(PrepareHeadsContract, WritesEightBitsWithAScaleForEachHeadOfAnEntry) {
  for (const DType dtype : HeldOf(*backend_, {DType::kI8, DType::kE4M3})) {
    for (const int32_t dim : {2, 12, 64}) CheckEightBits(*backend_, dtype, dim);
  }
}

// Lists of the same bytes are not the same lists: twelve positions, then four with their slots.
TEST_P(PrepareHeadsContract, RowsThatWriteAfterMoreRowsThatDoNotFindTheirSlots) {
  const Tensor rotary(*backend_, {9, 2}, RotaryTable(9, 2));
  const Tensor many(*backend_, {12, 6}, Random(23).Normal(12 * 6));
  const std::vector<float> numbers = Random(24).Normal(4 * 6);
  const Tensor few(*backend_, {4, 6}, numbers);
  const Tensor pool(*backend_, DType::kF32, {1, 1, 2, kKvPageEntries * 2});
  const KvLayer kv{pool.view().data, DType::kF32, 1, 1, 2};
  HeadSpec spec{.heads = 1, .kv_heads = 1, .head_dim = 2};
  spec.rotary = rotary;
  backend_->PrepareHeads(many, spec, std::vector<int32_t>{0, 1, 2, 3, 5, 0, 6, 0, 7, 0, 8, 0},
                         nullptr, {});
  backend_->PrepareHeads(few, spec, std::vector<int32_t>{0, 1, 2, 3}, &kv,
                         std::vector<int64_t>{5, 6, 7, 8});
  const std::vector<float> written = pool.Read();
  for (int64_t i = 0; i < 4; ++i) {
    const int64_t at = KvEntryIndex(1, {0, 0, kValue, 5 + i}) * 2;
    EXPECT_EQ(written[at], numbers[i * 6 + 4]) << i;
    EXPECT_EQ(written[at + 1], numbers[i * 6 + 5]) << i;
  }
}

// A head of zeros has no largest number to divide by; one that holds no number shows as none.
void CheckZerosAndNoNumbers(Backend& backend, DType dtype) {
  Tensor rotary(backend, {1, 2}, {1, 0});
  Tensor qkv(backend, {3, 6}, {1, 1, 0, 0, 0, 0, 1, 1, 1, 2, 3, kNaN, 1, 1, 1, 2, INFINITY, 1});
  Tensor pool(backend, dtype, {3, 1, 2, 16 * 2});
  Tensor scales(backend, DType::kBF16, {3, 1, 2, 16});
  const KvLayer kv{.data = pool.view().data,
                   .dtype = dtype,
                   .pages = 3,
                   .kv_heads = 1,
                   .head_dim = 2,
                   .scales = static_cast<uint16_t*>(scales.view().data)};
  HeadSpec spec{.heads = 1, .kv_heads = 1, .head_dim = 2};
  spec.rotary = rotary;
  backend.PrepareHeads(qkv, spec, std::vector<int32_t>{0, 0, 0}, &kv,
                       std::vector<int64_t>{0, 16, 32});
  Tensor out(backend, {3, 2});
  const AttentionRow rows[] = {{0, 0, 0, 1}, {0, 0, 1, 1}, {0, 0, 2, 1}};
  backend.PagedAttention(out, qkv.view().Columns(0, 2), spec, kv, rows,
                         std::vector<int32_t>{0, 1, 2});
  const std::vector<float> got = out.Read();
  EXPECT_EQ(std::vector<float>(got.begin(), got.begin() + 2), (std::vector<float>{0, 0}));
  for (int i = 2; i < 6; ++i) EXPECT_TRUE(std::isnan(got[i])) << Name(dtype) << ' ' << i;
}

TEST_P(PrepareHeadsContract, EightBitsOfZerosAreZeroAndOfNoNumberAreNone) {
  for (const DType dtype : HeldOf(*backend_, {DType::kI8, DType::kE4M3})) {
    CheckZerosAndNoNumbers(*backend_, dtype);
  }
}

TEST_P(PrepareHeadsContract, NeedsNoKvMemory) {
  Tensor rotary(*backend_, {2, 4}, {1, 1, 0, 0, 0, 0, 1, 1});  // none, then a quarter turn
  Tensor qkv(*backend_, {1, 12}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  HeadSpec spec{.heads = 1, .kv_heads = 1, .head_dim = 4};
  spec.rotary = rotary;
  const int32_t positions[] = {1};
  backend_->PrepareHeads(qkv, spec, positions, nullptr, {});
  EXPECT_EQ(qkv.Read(), (std::vector<float>{-3, -4, 1, 2, -7, -8, 5, 6, 9, 10, 11, 12}));
}

CATSERVE_ON_EVERY_BACKEND(PrepareHeadsContract);

}  // namespace
}  // namespace catserve

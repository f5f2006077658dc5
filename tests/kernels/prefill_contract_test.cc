// Attention of prompts: runs of rows of one sequence, after a prefix or not, beside single rows of
// others, in heads of the sizes that tensor cores take. A backend may compute the runs with 16
// bits where the memory has no more.
#include <cmath>

#include "tests/kernels/attention_scene.h"

namespace catserve {
namespace {

using testing::AttentionScene;
using testing::AttentionShape;
using testing::OnEveryBackend;
using testing::Random;
using testing::SpecOf;
using testing::Tensor;

// |got - want| / |want| of a head, in the Euclidean norm.
double Tolerance(const std::string& backend, DType kv) {
  return backend.starts_with("cuda") && kv != DType::kF32 ? 6e-3 : 1e-5;
}

class MixedBatch {
 public:
  MixedBatch(Backend& backend, const AttentionShape& shape)
      : backend_(backend), shape_(shape), scene_(backend, shape, 200, 31) {}

  // Rows that see the `prefix` entries from the first on, then entries, entries + 1, ... of a list
  // that begins with entry `first`.
  void Add(int32_t entries, int32_t rows, int32_t first, int32_t prefix = 0) {
    AttentionRow row{.prefix_entries = prefix, .entries = entries};
    row.prefix_page = scene_.Place(first - prefix, prefix);
    row.page = scene_.Place(first, entries + rows - 1);
    for (int32_t i = 0; i < rows; ++i, ++row.entries) {
      rows_.push_back(row);
      firsts_.push_back(first - prefix);
    }
  }

  // The largest error of a head; infinite where it is no number.
  double WorstError() {
    const int64_t width = int64_t{shape_.heads} * shape_.head_dim;
    const std::vector<float> q = Random(32).Normal(std::ssize(rows_) * width);
    Tensor out(backend_, {std::ssize(rows_), width});
    const Tensor q_tensor(backend_, {std::ssize(rows_), width}, q);
    backend_.PagedAttention(out, q_tensor, SpecOf(shape_), scene_.layer(), rows_,
                            scene_.page_ids());
    const std::vector<float> got = out.Read();
    double worst = 0;
    for (int64_t at = 0; at < std::ssize(got); at += shape_.head_dim) {
      const int64_t i = at / width;
      const auto head = static_cast<int32_t>(at % width / shape_.head_dim);
      const int32_t seen = rows_[i].prefix_entries + rows_[i].entries;
      const auto want = scene_.Expect(q.data() + at, head, seen, firsts_[i]);
      const double error = Error(got.data() + at, want);
      EXPECT_FALSE(std::isnan(error)) << "row " << i << " head " << head;
      worst = std::max(worst, error);
    }
    return worst;
  }

 private:
  static double Error(const float* got, const std::vector<double>& want) {
    double difference = 0, size = 0;
    for (size_t d = 0; d < want.size(); ++d) {
      difference += (got[d] - want[d]) * (got[d] - want[d]);
      size += want[d] * want[d];
    }
    return size > 0 ? std::sqrt(difference / size) : std::sqrt(difference);
  }

  Backend& backend_;
  AttentionShape shape_;
  AttentionScene scene_;
  std::vector<AttentionRow> rows_;
  std::vector<int32_t> firsts_;
};

class PrefillContract : public OnEveryBackend {};

TEST_P(PrefillContract, PromptsBesideDecodingRowsAndBranches) {
  const AttentionShape shapes[] = {{2, 2, 64, DType::kBF16},
                                   {2, 1, 128, DType::kI8},
                                   {3, 1, 64, DType::kBF16},
                                   {2, 2, 64, DType::kE4M3},
                                   {1, 1, 64, DType::kF32}};
  for (const AttentionShape& shape : shapes) {
    if (!backend_->HoldsKv(shape.dtype)) continue;
    MixedBatch batch(*backend_, shape);
    batch.Add(40, 1, 0);
    batch.Add(1, 70, 3);  // more than one tile of rows, and of entries
    batch.Add(100, 1, 60);
    batch.Add(33, 2, 20);      // a summary and its separator
    batch.Add(1, 12, 37, 37);  // a branch: rows after a prefix
    batch.Add(0, 9, 30, 16);   // whose first row has nothing of its own
    batch.Add(17, 11, 90);     // a prompt's later piece
    batch.Add(0, 3, 70);       // whose first row sees nothing
    EXPECT_LT(batch.WorstError(), Tolerance(GetParam(), shape.dtype))
        << shape.heads << '/' << shape.kv_heads << " heads of " << shape.head_dim << " in "
        << Name(shape.dtype);
  }
}

// Two branches follow each other, and their own entries lie in one list: they are not one run.
TEST_P(PrefillContract, ARunEndsWhereItsPrefixDoes) {
  const AttentionShape shape{1, 1, 64, DType::kBF16};
  AttentionScene scene(*backend_, shape, 64, 33);
  const int32_t own = scene.Place(16, 16);
  const int32_t prefixes[] = {scene.Place(0, 16), scene.Place(32, 16)};
  std::vector<AttentionRow> rows;
  for (int32_t i = 0; i < 16; ++i) rows.push_back({prefixes[i / 8], 16, own, i + 1});
  const std::vector<float> q(16 * 64, 0.0f);  // all entries weigh the same
  Tensor out(*backend_, {16, 64});
  backend_->PagedAttention(out, Tensor(*backend_, {16, 64}, q), SpecOf(shape), scene.layer(), rows,
                           scene.page_ids());
  const std::vector<float> got = out.Read();
  for (int32_t i = 0; i < 16; ++i) {
    // The mean of two ranges is that of their means.
    const int32_t n = i + 1;
    const auto prefix = scene.Expect(q.data(), 0, 16, i < 8 ? 0 : 32);
    const auto mine = scene.Expect(q.data(), 0, n, 16);
    for (int32_t d = 0; d < 64; ++d) {
      EXPECT_NEAR(got[i * 64 + d], (16 * prefix[d] + n * mine[d]) / (16 + n), 4e-3) << i;
    }
  }
}

CATSERVE_ON_EVERY_BACKEND(PrefillContract);

}  // namespace
}  // namespace catserve

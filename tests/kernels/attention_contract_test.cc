// Attention over pages and within blocks, against double precision.
#include <cmath>

#include "tests/kernels/attention_scene.h"

namespace catserve {
namespace {

using testing::AttentionScene;
using testing::AttentionShape;
using testing::HeldOf;
using testing::OnEveryBackend;
using testing::Random;
using testing::SpecOf;
using testing::Tensor;

class PagedAttentionContract : public OnEveryBackend {};
class BlockAttentionContract : public OnEveryBackend {};

// One row for each of `visible`, which sees that many entries, `prefix` of them in another list.
void CheckPaged(Backend& backend, const AttentionShape& shape, std::vector<int32_t> visible,
                int32_t prefix) {
  const int32_t entries = *std::max_element(visible.begin(), visible.end());
  SCOPED_TRACE(::testing::Message()
               << shape.heads << '/' << shape.kv_heads << " heads of " << shape.head_dim << ' '
               << Name(shape.dtype) << ", " << entries << " entries, prefix " << prefix);
  AttentionScene scene(backend, shape, entries, 11);
  const int32_t prefix_page = scene.Place(0, prefix);
  const int32_t page = scene.Place(prefix, entries - prefix);
  const int64_t count = static_cast<int64_t>(visible.size());
  const int64_t width = shape.heads * shape.head_dim;
  const std::vector<float> q = Random(12).Normal(count * width, 2.0f);
  std::vector<AttentionRow> rows;
  for (const int32_t n : visible) rows.push_back({prefix_page, prefix, page, n - prefix});
  Tensor out(backend, {count, width});
  const Tensor q_tensor(backend, {count, width}, q);
  backend.PagedAttention(out, q_tensor, SpecOf(shape), scene.layer(), rows, scene.page_ids());
  const std::vector<float> got = out.Read();
  for (int64_t i = 0; i < count; ++i) {
    for (int32_t h = 0; h < shape.heads; ++h) {
      const int64_t at = i * width + h * shape.head_dim;
      const std::vector<double> want = scene.Expect(q.data() + at, h, visible[i]);
      for (int32_t d = 0; d < shape.head_dim; ++d) {
        ASSERT_NEAR(got[at + d], want[d], 3e-6) << "row " << i << " head " << h << " dim " << d;
      }
    }
  }
}

TEST_P(PagedAttentionContract, MatchesDoublePrecisionAroundPageBoundaries) {
  for (const DType dtype : HeldOf(*backend_)) {
    for (const int32_t n : {1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100}) {
      CheckPaged(*backend_, {2, 2, 16, dtype}, {n}, 0);
    }
  }
}

TEST_P(PagedAttentionContract, MatchesDoublePrecisionForEveryHeadSize) {
  for (const DType dtype : HeldOf(*backend_)) {
    for (const int32_t head_dim : {2, 4, 6, 8, 10, 24, 32, 34, 64, 96, 128, 254, 256}) {
      CheckPaged(*backend_, {2, 1, head_dim, dtype}, {21, 22}, 0);
    }
  }
}

TEST_P(PagedAttentionContract, GroupsHeadsOverKeyValueHeads) {
  CheckPaged(*backend_, {8, 2, 16, DType::kF32}, {5, 6, 7}, 0);
  CheckPaged(*backend_, {6, 2, 8, DType::kBF16}, {40, 41, 42, 43, 44}, 0);
  CheckPaged(*backend_, {12, 1, 8, DType::kF32}, {18, 19}, 0);
  CheckPaged(*backend_, {6, 3, 16, DType::kI8}, {18, 40}, 0);
}

TEST_P(PagedAttentionContract, SeesThePrefixFirst) {
  for (const int32_t prefix : {1, 5, 16, 20}) {
    for (const DType dtype : HeldOf(*backend_, {DType::kF32, DType::kI8, DType::kE4M3})) {
      CheckPaged(*backend_, {2, 2, 16, dtype}, {prefix + 1, prefix + 2, prefix + 19}, prefix);
    }
  }
  CheckPaged(*backend_, {2, 2, 16, DType::kF32}, {30}, 30);  // nothing of its own
}

TEST_P(PagedAttentionContract, PrefillsManyRowsOfOneSequence) {
  std::vector<int32_t> visible;
  for (int32_t n = 1; n <= 150; ++n) visible.push_back(n);
  CheckPaged(*backend_, {4, 2, 8, DType::kF32}, visible, 0);
  for (int32_t& n : visible) n += 37;
  CheckPaged(*backend_, {2, 2, 8, DType::kBF16}, visible, 37);
  CheckPaged(*backend_, {2, 2, 8, DType::kI8}, visible, 37);
}

// Rows of several sequences in one batch, neighbours in pairs as when chunks close.
TEST_P(PagedAttentionContract, DecodesManySequencesTogether) {
  const AttentionShape shape{.heads = 4, .kv_heads = 2, .head_dim = 8};
  AttentionScene scene(*backend_, shape, 140, 13);
  std::vector<AttentionRow> rows;
  std::vector<int32_t> firsts;
  const int32_t shared = scene.Place(0, 6);
  for (const int32_t first : {6, 9, 40, 41, 90}) {
    const int32_t count = 10 + first / 3;
    const int32_t page = scene.Place(first, count);
    const bool branch = first == 6;  // follows the shared prefix without a gap
    rows.push_back({branch ? shared : 0, branch ? 6 : 0, page, count - 1});
    rows.push_back({branch ? shared : 0, branch ? 6 : 0, page, count});
    firsts.insert(firsts.end(), 2, branch ? 0 : first);
  }
  const int64_t count = static_cast<int64_t>(rows.size());
  const std::vector<float> q = Random(14).Normal(count * 32, 2.0f);
  Tensor out(*backend_, {count, 32});
  const Tensor q_tensor(*backend_, {count, 32}, q);
  backend_->PagedAttention(out, q_tensor, SpecOf(shape), scene.layer(), rows, scene.page_ids());
  const std::vector<float> got = out.Read();
  for (int64_t at = 0; at < count * 32; ++at) {
    const int64_t i = at / 32, head = at % 32 / 8;
    const int32_t n = rows[i].prefix_entries + rows[i].entries;
    const std::vector<double> want =
        scene.Expect(q.data() + i * 32 + head * 8, static_cast<int32_t>(head), n, firsts[i]);
    ASSERT_NEAR(got[at], want[at % 8], 3e-6) << "row " << i << " head " << head;
  }
}

// A backend may keep the lists of the last call on its device: not where the next call's differ,
// and not where other work took their memory meanwhile.
TEST_P(PagedAttentionContract, FollowsItsListsFromCallToCall) {
  const AttentionShape shape{.heads = 1, .kv_heads = 1, .head_dim = 8};
  AttentionScene scene(*backend_, shape, 32, 15);
  scene.Place(0, 16);
  scene.Place(16, 16);
  const std::vector<int32_t> swapped = {scene.page_ids()[1], scene.page_ids()[0]};
  const AttentionRow rows[] = {{.entries = 16}};
  const std::vector<float> q = Random(16).Normal(8, 2.0f);
  const Tensor q_tensor(*backend_, {1, 8}, q);
  const Tensor outs[] = {{*backend_, {1, 8}}, {*backend_, {1, 8}}, {*backend_, {1, 8}}};
  const auto attend = [&](const Tensor& out, const std::vector<int32_t>& page_ids) {
    backend_->PagedAttention(out, q_tensor, SpecOf(shape), scene.layer(), rows, page_ids);
  };
  attend(outs[0], scene.page_ids());
  attend(outs[1], swapped);
  backend_->Synchronize();
  const Tensor table(*backend_, {1, 8}, q);
  const TensorView tables[] = {table};
  const Tensor gathered(*backend_, {300, 8});
  backend_->Gather(gathered, tables, {}, std::vector<GatherRow>(300));
  attend(outs[2], swapped);
  for (int i = 0; i < 3; ++i) {
    const std::vector<float> got = outs[i].Read();
    const std::vector<double> want = scene.Expect(q.data(), 0, 16, i == 0 ? 0 : 16);
    for (int32_t d = 0; d < 8; ++d) EXPECT_NEAR(got[d], want[d], 3e-6) << i << ' ' << d;
  }
}

TEST_P(PagedAttentionContract, ARowThatSeesNothingIsZero) {
  const AttentionShape shape;
  AttentionScene scene(*backend_, shape, 4, 3);
  const int32_t page = scene.Place(0, 4);
  Tensor out(*backend_, {2, 32});
  Tensor q(*backend_, {2, 32}, Random(4).Normal(64));
  const AttentionRow rows[] = {{page, 0, page, 0}, {page, 0, page, 3}};
  backend_->PagedAttention(out, q, SpecOf(shape), scene.layer(), rows, scene.page_ids());
  const std::vector<float> got = out.Read();
  for (int64_t i = 0; i < 32; ++i) EXPECT_EQ(got[i], 0.0f);
  for (int64_t i = 32; i < 64; ++i) EXPECT_TRUE(std::isfinite(got[i]));
}

TEST_P(PagedAttentionContract, HugeScoresDoNotOverflow) {
  const AttentionShape shape{.heads = 1, .kv_heads = 1, .head_dim = 4};
  AttentionScene scene(*backend_, shape, 20, 5);
  const int32_t page = scene.Place(0, 20);
  const std::vector<float> q = Random(6).Normal(4, 1e6f);
  Tensor out(*backend_, {1, 4});
  const AttentionRow rows[] = {{0, 0, page, 20}};
  backend_->PagedAttention(out, Tensor(*backend_, {1, 4}, q), SpecOf(shape), scene.layer(), rows,
                           scene.page_ids());
  const std::vector<double> want = scene.Expect(q.data(), 0, 20);
  const std::vector<float> got = out.Read();
  for (int64_t d = 0; d < 4; ++d) EXPECT_NEAR(got[d], want[d], 1e-6);
}

// A block is what a sequence of as many entries is without causality.
TEST_P(BlockAttentionContract, MatchesDoublePrecision) {
  struct Case {
    int32_t heads, kv_heads, head_dim;
    std::vector<RowBlock> blocks;
  };
  const Case cases[] = {{4, 4, 16, {{0, 10}, {10, 10}, {20, 10}}},
                        {4, 2, 6, {{0, 3}, {3, 34}, {40, 1}, {41, 17}}},
                        {9, 1, 8, {{2, 5}}}};
  for (const Case& c : cases) {
    const int64_t rows = c.blocks.back().first + c.blocks.back().count + 2;
    const int64_t dim = c.head_dim, width = c.heads * dim, kv_width = c.kv_heads * dim;
    const int64_t stride = width + 2 * kv_width;
    const std::vector<float> qkv = Random(7).Normal(rows * stride, 2.0f);
    Tensor out(*backend_, {rows, width});
    backend_->BlockAttention(out, Tensor(*backend_, {rows, stride}, qkv),
                             {.heads = c.heads, .kv_heads = c.kv_heads, .head_dim = c.head_dim},
                             c.blocks);
    const std::vector<float> got = out.Read();
    int64_t covered = 0;
    for (const RowBlock& block : c.blocks) {
      covered += block.count;
      for (int64_t at = 0; at < block.count * width; ++at) {
        const int64_t i = block.first + at / width, h = at % width / dim, d = at % dim;
        const float* q = qkv.data() + i * stride + h * dim;
        const int64_t key = width + h / (c.heads / c.kv_heads) * dim;
        double sum = 0, want = 0;
        for (int64_t j = block.first; j < block.first + block.count; ++j) {
          double score = 0;
          for (int64_t e = 0; e < dim; ++e) score += double{q[e]} * qkv[j * stride + key + e];
          const double p = std::exp(score / std::sqrt(static_cast<double>(dim)));
          sum += p;
          want += p * qkv[j * stride + key + kv_width + d];
        }
        ASSERT_NEAR(got[i * width + h * dim + d], want / sum, 1e-5) << i << ' ' << h << ' ' << d;
      }
    }
    int64_t untouched = 0;
    for (int64_t i = 0; i < rows; ++i) untouched += std::isnan(got[i * width]);
    EXPECT_EQ(untouched, rows - covered) << "rows outside the blocks are left alone";
  }
}

CATSERVE_ON_EVERY_BACKEND(PagedAttentionContract);
CATSERVE_ON_EVERY_BACKEND(BlockAttentionContract);

}  // namespace
}  // namespace catserve

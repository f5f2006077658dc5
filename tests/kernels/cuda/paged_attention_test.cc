// Emulated: paged attention as the plan deals it out, row by row, in pieces and combined, against
// the CPU's. Nothing here has run on a GPU.
#include <numeric>

#include "kernels/cuda/attention_combine.cuh"
#include "kernels/cuda/paged_attention_decode.cuh"
#include "kernels/cuda/paged_attention_piece.cuh"
#include "tests/kernels/cuda/paged_scene.h"
#include "tests/kernels/cuda/tolerance.h"

namespace catserve::cuda {
namespace {

using testing::PagedScene;
using testing::Poisoned;
using testing::RelativeError;
using testing::Tolerance;

// An instance of the decode kernel, and beside it the kernel for pieces where there is one.
template <typename Number, typename Stored, int kDim, bool kIsExact, int kHeads, int kWarps>
struct Variant {
  using T = Number;
  using KV = Stored;
  using Layout = TileLayout<KV, kDim, kIsExact>;
  static constexpr int kGroup = kHeads;
  static constexpr int kSplit = kWarps;
  static constexpr bool kHasPieces = sizeof(T) == 2 && kIsExact && kDim <= 128;
};

// A device so small, or so large, that the plan chooses this variant.
template <class V>
constexpr Device kDevice = {.multiprocessors = V::kSplit == 1 ? 1 : 132};

template <class V>
void Launch(const PagedAttentionArgs& args, const AttentionPlan& plan, uint32_t seed) {
  // A graph launches blocks for its bucket: some have nothing to do.
  const auto spare = [](size_t items) { return static_cast<int>(items) + 2; };
  emulator::Launch(DecodeShape<V::kGroup, V::kSplit>(spare(plan.decode.size()), args.heads), seed,
                   [&] { PagedAttentionDecode<typename V::Layout, V::kGroup, V::kSplit>(args); });
  if constexpr (V::kHasPieces) {
    emulator::Launch(PieceShape(spare(plan.pieces.size()), args.kv.kv_heads), seed,
                     [&] { PagedAttentionPiece<typename V::KV, V::Layout::kHeadDim>(args); });
  }
  emulator::Launch(CombineShape(spare(plan.combines.size()), args.heads), seed,
                   [&] { AttentionCombine(args); });
}

// Runs the scene in several orders of threads; the bits must not depend on it.
template <class V>
std::vector<float> Attend(PagedScene<typename V::T, typename V::KV>& scene,
                          const AttentionPlan& plan) {
  using T = typename V::T;
  const int32_t counts[kCounts] = {static_cast<int32_t>(plan.decode.size()),
                                   static_cast<int32_t>(plan.pieces.size()),
                                   static_cast<int32_t>(plan.combines.size())};
  PagedAttentionArgs args = scene.Args();
  args.decode_items = plan.decode.data();
  args.piece_items = plan.pieces.data();
  args.combine_items = plan.combines.data();
  args.counts = counts;
  std::vector<T> first;
  for (const uint32_t seed : {0u, 1u, 2u}) {
    scene.out() = Poisoned<T>(scene.Size());
    auto partial_out = Poisoned<float>(plan.slots * scene.Width());
    auto partial_max_sum = Poisoned<float>(int64_t{plan.slots} * args.heads * 2);
    args.out = scene.out().data();
    args.partial_out = partial_out.data();
    args.partial_max_sum = partial_max_sum.data();
    Launch<V>(args, plan, seed);
    if (first.empty()) first = scene.out();
    EXPECT_EQ(std::memcmp(first.data(), scene.out().data(), first.size() * sizeof(T)), 0)
        << "the result depends on the order of threads";
  }
  return testing::Widen(first);
}

// The largest error of a (row, head).
double WorstHead(const std::vector<float>& got, const std::vector<float>& want, int head_dim) {
  double worst = 0;
  for (size_t i = 0; i < want.size(); i += head_dim) {
    worst = std::max(worst, RelativeError(std::span(got).subspan(i, head_dim),
                                          std::span(want).subspan(i, head_dim)));
  }
  return worst;
}

// Rows of all lengths around a page, long ones, prefixes, runs of rows, and one that sees nothing.
template <class Scene>
void AddRowsOfAllKinds(Scene& scene, int32_t run) {
  for (const int32_t entries : {1, 15, 16, 17, 33, 0, 100, 530}) scene.Add(entries);
  scene.Add(5, 2, 33);  // a branch: rows after a prefix
  scene.Add(7, 1, 20);
  scene.Add(0, 1, 16);
  scene.Add(0, run / 4 + 1, 20);  // a branch of which a piece can be made
  scene.Add(3, run);
  scene.MakeQueries();
}

template <class V>
void ExpectTwin(const AttentionLayer& layer, const Tolerance& tolerance) {
  PagedScene<typename V::T, typename V::KV> scene(layer, 7);
  AddRowsOfAllKinds(scene, V::kHasPieces ? 70 : 3);
  const AttentionPlan plan =
      PlanAttention(scene.rows(), static_cast<int>(scene.rows().size()), layer, kDevice<V>);
  ASSERT_EQ(plan.group, V::kGroup);
  ASSERT_EQ(plan.split_warps, V::kSplit);
  ASSERT_EQ(!plan.pieces.empty(), V::kHasPieces);
  ASSERT_GT(plan.slots, 0);
  const std::vector<float> got = Attend<V>(scene, plan);
  EXPECT_LT(WorstHead(got, scene.Want(), layer.head_dim), tolerance.Of<typename V::T>());
}

TEST(EmulatedPagedAttention, F32ByWarps) {
  ExpectTwin<Variant<float, float, 64, true, 1, 1>>({.heads = 2, .kv_heads = 2, .head_dim = 64},
                                                    testing::kAttentionRows);
}

TEST(EmulatedPagedAttention, F32OfAnOddHeadSizeByBlocks) {
  ExpectTwin<Variant<float, float, 256, false, 1, 8>>({.heads = 3, .kv_heads = 1, .head_dim = 200},
                                                      testing::kAttentionRows);
}

TEST(EmulatedPagedAttention, BF16ByBlocksAndInPieces) {
  ExpectTwin<Variant<BF16, BF16, 64, true, 1, 8>>(
      {.heads = 2, .kv_heads = 2, .head_dim = 64, .tensor_cores = true}, testing::kPieceRows);
}

TEST(EmulatedPagedAttention, F16OfGroupedHeadsOverAnOddHeadSizeInI8) {
  ExpectTwin<Variant<F16, I8, 64, false, 2, 1>>(
      {.heads = 4, .kv_heads = 2, .head_dim = 40, .tensor_cores = true}, testing::kAttentionRows);
}

TEST(EmulatedPagedAttention, F16OfThreeHeadsToAGroupOverI8) {
  ExpectTwin<Variant<F16, I8, 64, true, 1, 1>>(
      {.heads = 3, .kv_heads = 1, .head_dim = 64, .tensor_cores = true}, testing::kPieceRows);
}

TEST(EmulatedPagedAttention, BF16OfFourHeadsToAGroupOverE4M3) {
  ExpectTwin<Variant<BF16, E4M3, 128, true, 4, 1>>(
      {.heads = 4, .kv_heads = 1, .head_dim = 128, .tensor_cores = true}, testing::kPieceRows);
}

// What 8 bits cost, apart from computing with them.
template <typename KV>
double ErrorOfStoring() {
  const AttentionLayer layer{.heads = 2, .kv_heads = 2, .head_dim = 64};
  PagedScene<float, KV> scene(layer, 3);
  for (const int32_t entries : {1, 20, 100}) scene.Add(entries);
  scene.MakeQueries();
  return WorstHead(scene.Want(), scene.WantOfOriginal(), layer.head_dim);
}

TEST(KvTypes, StoringWithEightBitsCostsWhatTheTableSays) {
  EXPECT_LT(ErrorOfStoring<E4M3>(), testing::kStoredE4M3);
  EXPECT_LT(ErrorOfStoring<I8>(), testing::kStoredI8);
  EXPECT_GT(ErrorOfStoring<I8>(), testing::kStoredI8 / 10) << "the table is far too generous";
}

TEST(KvTypes, AScaleKeepsTheLargestNumberInRange) {
  for (const float largest : {1e-30f, 0.3f, 1.0f, 126.9f, 127.0f, 3e4f}) {
    const float scale = ToFloat(EntryScale<I8>(largest));
    EXPECT_LE(largest / scale, 127.0f) << largest;
    EXPECT_GT(largest / scale, 125.9f) << largest;
  }
  EXPECT_EQ(ToFloat(EntryScale<E4M3>(0.0f)), 0.0f);
}

}  // namespace
}  // namespace catserve::cuda

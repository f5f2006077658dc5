// Emulated: the operations on rows against the CPU's. Nothing here has run on a GPU.
#include <cmath>

#include "kernels/cuda/block_attention.cuh"
#include "kernels/cuda/copy_pages.cuh"
#include "kernels/cuda/gather.cuh"
#include "kernels/cuda/mat_vec.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/cuda/silu_gate.cuh"
#include "tests/kernels/cuda/emulated.h"
#include "tests/kernels/cuda/tolerance.h"

namespace catserve::cuda {
namespace {

using ::catserve::testing::HostMatrix;
using ::catserve::testing::Make;
using testing::InEveryOrder;
using testing::Narrow;
using testing::Poisoned;
using testing::Random;
using testing::RelativeError;
using testing::Tensor;
using testing::Widen;

// The largest relative error of a row.
double WorstRow(const std::vector<float>& got, const std::vector<float>& want, int64_t width) {
  double worst = got.size() == want.size() ? 0 : INFINITY;
  for (size_t i = 0; i + width <= want.size(); i += width) {
    worst = std::max(
        worst, RelativeError(std::span(got).subspan(i, width), std::span(want).subspan(i, width)));
  }
  return worst;
}

template <typename T>
void CheckRmsNorm(int32_t rows, int32_t width) {
  Random random(width);
  const std::vector<float> x = random.Normal(int64_t{rows} * width, 3.0f);
  const std::vector<float> weight = random.Normal(width);
  auto out = Poisoned<T>(int64_t{rows} * width);
  const RmsNormArgs args{.out = out.data(),
                         .x = x.data(),
                         .weight = weight.data(),
                         .out_stride = width,
                         .x_stride = width,
                         .rows = rows,
                         .width = width,
                         .eps = 1e-5f};
  const auto got = InEveryOrder(out, RmsNormShape(args), [&] { RmsNorm<T>(args); });
  const auto cpu = Make("cpu-reference", 1);
  const Tensor want(*cpu, {rows, width});
  cpu->RmsNorm(want, Tensor(*cpu, {rows, width}, x), Tensor(*cpu, {width}, weight), 1e-5f);
  EXPECT_LT(WorstRow(got, want.Read(), width), testing::kPlainRows.Of<T>()) << rows << ' ' << width;
}

TEST(EmulatedRmsNorm, MatchesTheCpu) {
  CheckRmsNorm<float>(5, 37);
  CheckRmsNorm<BF16>(1, 256);
  CheckRmsNorm<F16>(9, 100);
}

template <typename T>
void CheckSiluGate(int32_t rows, int32_t width) {
  Random random(rows);
  auto in = Narrow<T>(random.Normal(int64_t{rows} * 2 * width, 8.0f));
  in[0] = FromFloat<T>(200.0f);
  in[2 * width] = FromFloat<T>(-200.0f);  // e^-x overflows
  auto out = Poisoned<T>(int64_t{rows} * width);
  const SiluGateArgs args{.out = out.data(),
                          .gate_up = in.data(),
                          .out_stride = width,
                          .in_stride = int64_t{2} * width,
                          .rows = rows,
                          .width = width};
  const auto got = InEveryOrder(out, SiluGateShape(args), [&] { SiluGate<T>(args); });
  const auto cpu = Make("cpu-reference", 1);
  const Tensor want(*cpu, {rows, width});
  cpu->SiluGate(want, Tensor(*cpu, {rows, 2 * width}, Widen(in)));
  EXPECT_LT(WorstRow(got, want.Read(), width), testing::kPlainRows.Of<T>());
}

TEST(EmulatedSiluGate, MatchesTheCpuOverTheWholeRange) {
  CheckSiluGate<float>(3, 300);
  CheckSiluGate<BF16>(2, 33);
  CheckSiluGate<F16>(2, 256);
}

TEST(EmulatedGather, CopiesRowsOfEveryTypeDirectlyAndByTheHistory) {
  constexpr int kWidth = 150;
  Random random(1);
  const auto f32 = random.Normal(9 * kWidth);
  const auto bf16 = Narrow<BF16>(random.Normal(9 * kWidth));
  const auto f16 = Narrow<F16>(random.Normal(9 * kWidth));
  const std::vector<float> tables[] = {f32, Widen(bf16), Widen(f16)};
  const int32_t history[] = {8, 0, 3};
  const GatherItem items[] = {{0, 2, 0}, {1, 2, 1}, {2, 7, 0}, {0, 0, 1}};
  const int32_t count = 4;
  std::vector<float> out(5 * kWidth);
  const GatherArgs args{.out = out.data(),
                        .out_stride = kWidth,
                        .width = kWidth,
                        .tables = {{f32.data(), kWidth, DType::kF32},
                                   {bf16.data(), kWidth, DType::kBF16},
                                   {f16.data(), kWidth, DType::kF16}},
                        .history = history,
                        .items = items,
                        .count = &count};
  const auto got = InEveryOrder(out, GatherShape(5), [&] { Gather(args); });
  const int rows[] = {2, 3, 7, 8};
  for (int i = 0; i < 4; ++i) {
    for (int d = 0; d < kWidth; ++d) {
      EXPECT_EQ(got[i * kWidth + d], tables[items[i].table][rows[i] * kWidth + d]) << i;
    }
  }
  EXPECT_TRUE(std::isnan(got[4 * kWidth])) << "a block beyond the count wrote";
}

TEST(EmulatedCopyPages, CopiesWholePagesInEveryLayerAndNothingElse) {
  constexpr int kPages = 5, kLayers = 3, kPageBytes = 4112;  // no multiple of a block's stride
  constexpr int64_t kLayerBytes = int64_t{kPages} * kPageBytes + 64;
  alignas(16) static uint8_t slab[kLayers * kLayerBytes];
  std::vector<uint8_t> want(sizeof(slab));
  Random random(4);
  for (size_t i = 0; i < sizeof(slab); ++i) want[i] = slab[i] = random.Below(256);
  const PagePair pairs[] = {{4, 1}, {0, 2}};
  for (int layer = 0; layer < kLayers; ++layer) {
    for (const auto& [from, to] : pairs) {
      const auto page = want.begin() + layer * kLayerBytes;
      std::copy_n(page + from * kPageBytes, kPageBytes, page + to * kPageBytes);
    }
  }
  const CopyPagesArgs args{
      .slab = slab, .layer_bytes = kLayerBytes, .page_bytes = kPageBytes, .pairs = pairs};
  emulator::Launch(CopyPagesShape(2, kLayers), 1, [&] { CopyPages(args); });
  EXPECT_EQ(std::vector<uint8_t>(slab, slab + sizeof(slab)), want);
}

// rows of x by a matrix, `stride` weights apart.
template <typename X, typename W, int kRows>
void CheckMatVec(int32_t rows, int32_t in, int32_t outs, bool add) {
  Random random(in);
  const int64_t stride = (in + 15) / 16 * 16;
  const auto x = Narrow<X>(random.Normal(int64_t{rows} * in));
  auto weights = Narrow<W>(random.Normal(outs * stride, sizeof(W) == 1 ? 40.0f : 1.0f));
  std::vector<float> scales = random.Normal(outs);
  std::vector<float> values(int64_t{outs} * in);
  for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
    const float scale = kHasScale<W> ? scales[i / in] : 1.0f;
    values[i] = ToFloat(weights[i / in * stride + i % in]) * scale;
  }
  const std::vector<float> before = random.Normal(int64_t{rows} * outs);
  std::vector<float> first;
  for (const uint32_t seed : {0u, 3u}) {
    std::vector<float> out = add ? before : Poisoned<float>(int64_t{rows} * outs);
    const MatVecArgs args{.out = out.data(),
                          .x = x.data(),
                          .w = weights.data(),
                          .scales = kHasScale<W> ? scales.data() : nullptr,
                          .out_stride = outs,
                          .x_stride = in,
                          .w_stride = stride,
                          .rows = rows,
                          .in = in,
                          .out_features = outs,
                          .add = add};
    emulator::Launch(MatVecShape<kRows>(args), seed, [&] { MatVec<X, W, kRows>(args); });
    if (seed == 0) first = out;
    EXPECT_EQ(out, first);
  }
  const auto cpu = Make("cpu-reference", 1);
  HostMatrix matrix(DType::kF32, outs, in, values);
  const auto packed = cpu->Pack(matrix.view()).value();
  const Tensor want(*cpu, {rows, outs}, before);
  cpu->MatMul(want, Tensor(*cpu, {rows, in}, Widen(x)), *packed, add);
  EXPECT_LT(WorstRow(first, want.Read(), outs), testing::kProducts.Of<X>()) << in << ' ' << outs;
}

TEST(EmulatedMatVec, MatchesTheCpuForFewRowsAndRaggedShapes) {
  CheckMatVec<float, float, 1>(1, 131, 37, false);
  CheckMatVec<BF16, BF16, 4>(3, 264, 18, true);
  CheckMatVec<F16, I8, 8>(8, 1000, 9, false);
}

template <typename T, class Layout>
void CheckBlockAttention(int32_t heads, int32_t kv_heads, int32_t head_dim) {
  // Chunks of 4, 16 and 32 tokens with two rows beside them, and a lone row, in mixed order.
  const std::vector<RowBlock> blocks = {{0, 18}, {18, 6}, {24, 1}, {25, 34}};
  constexpr int32_t kRows = 59;
  std::vector<BlockRow> of_rows;
  for (const RowBlock& block : blocks) {
    for (int32_t i = 0; i < block.count; ++i) {
      of_rows.push_back({block.first + i, block.first, block.count});
    }
  }
  const int64_t width = int64_t{heads + 2 * kv_heads} * head_dim;
  const int64_t out_width = int64_t{heads} * head_dim;
  Random random(head_dim);
  const auto qkv = Narrow<T>(random.Normal(kRows * width));
  auto out = Poisoned<T>(kRows * out_width);
  const BlockAttentionArgs args{
      .out = out.data(),
      .qkv = qkv.data(),
      .out_stride = out_width,
      .stride = width,
      .blocks = of_rows.data(),
      .heads = heads,
      .kv_heads = kv_heads,
      .head_dim = head_dim,
      .scale_log2 = 1.44269504f / std::sqrt(static_cast<float>(head_dim))};
  const auto got =
      InEveryOrder(out, BlockAttentionShape(args, kRows), [&] { BlockAttention<T, Layout>(args); });
  const auto cpu = Make("cpu-reference", 1);
  const Tensor want(*cpu, {kRows, out_width});
  cpu->BlockAttention(want, Tensor(*cpu, {kRows, width}, Widen(qkv)),
                      {.heads = heads, .kv_heads = kv_heads, .head_dim = head_dim}, blocks);
  EXPECT_LT(WorstRow(got, want.Read(), head_dim), testing::kAttentionRows.Of<T>());
}

TEST(EmulatedBlockAttention, MatchesTheCpuForChunksOfAllSizes) {
  CheckBlockAttention<float, TileLayout<float, 64, false>>(2, 2, 24);
  CheckBlockAttention<BF16, TileLayout<BF16, 64, true>>(2, 1, 64);
  CheckBlockAttention<float, NarrowLayout<float>>(1, 1, 10);
}

}  // namespace
}  // namespace catserve::cuda

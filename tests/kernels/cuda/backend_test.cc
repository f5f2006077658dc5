// Emulated: which way the backend sends its work. Nothing here has run on a GPU.
#include <algorithm>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "kernels/cuda/emulator/memory.h"
#include "kernels/cuda/emulator/pace.h"
#include "kernels/cuda/emulator/work.h"
#include "kernels/cuda/gather.cuh"
#include "kernels/cuda/paged_attention_decode.cuh"
#include "kernels/cuda/paged_attention_piece.cuh"
#include "tests/kernels/attention_scene.h"

namespace catserve::cuda {
namespace {

using ::catserve::testing::AttentionScene;
using ::catserve::testing::AttentionShape;
using ::catserve::testing::Make;
using ::catserve::testing::Random;
using ::catserve::testing::SpecOf;
using ::catserve::testing::Tensor;

// A sequence that decodes, and twenty rows of another's prompt.
void AttendToPromptAndRow(const AttentionShape& shape) {
  const auto backend = Make("cuda-emulated");
  AttentionScene scene(*backend, shape, 40, 41);
  std::vector<AttentionRow> rows = {{.page = scene.Place(0, 40), .entries = 40}};
  const int32_t prompt = scene.Place(0, 20);
  for (int32_t n = 1; n <= 20; ++n) rows.push_back({.page = prompt, .entries = n});
  const int64_t width = int64_t{shape.heads} * shape.head_dim;
  Tensor out(*backend, {21, width});
  const Tensor q(*backend, {21, width}, Random(42).Normal(21 * width));
  backend->PagedAttention(out, q, SpecOf(shape), scene.layer(), rows, scene.page_ids());
}

constexpr AttentionShape kNarrow{.heads = 1, .kv_heads = 1, .head_dim = 64, .dtype = DType::kBF16};

TEST(EmulatedBackend, PromptsOverNarrowMemoryGoToTheTensorCoresAndRowsDoNot) {
  const auto pieces = PagedAttentionPiece<BF16, 64>;
  const auto rows = PagedAttentionDecode<TileLayout<BF16, 64, true>, 1, 1>;
  const auto& given = emulator::Work::Given();
  const int64_t pieces_before = given.Launches(pieces), rows_before = given.Launches(rows);
  AttendToPromptAndRow(kNarrow);
  EXPECT_EQ(given.Launches(pieces), pieces_before + 1);
  EXPECT_EQ(given.Launches(rows), rows_before + 1);
}

TEST(EmulatedBackend, PromptsOverF32MemoryAndOtherHeadSizesGoRowByRow) {
  const auto any_size = PagedAttentionDecode<TileLayout<float, 256, false>, 1, 1>;
  const auto narrow = PagedAttentionDecode<TileLayout<BF16, 256, false>, 1, 1>;
  const auto& given = emulator::Work::Given();
  const int64_t before = given.Launches(any_size) + given.Launches(narrow);
  AttendToPromptAndRow({.heads = 1, .kv_heads = 1, .head_dim = 64, .dtype = DType::kF32});
  AttendToPromptAndRow({.heads = 1, .kv_heads = 1, .head_dim = 32, .dtype = DType::kBF16});
  EXPECT_EQ(given.Launches(any_size) + given.Launches(narrow), before + 2);
}

// Small copies wait with the work, large ones do not: all of them keep their order.
TEST(EmulatedBackend, CopiesKeepTheirOrderHoweverLargeTheyAre) {
  const auto backend = Make("cuda-emulated");
  const Tensor from(*backend, {1, 100'000}), small(*backend, {1, 8}), large(*backend, {1, 8});
  std::vector<float> values(100'000, 1.0f);
  const auto copy = [&](const Tensor& to, int64_t floats) {
    backend->Copy(from.view().data, values.data(), floats * 4);
    std::fill(values.begin(), values.end(), values[0] + 1);  // a source may change after the call
    backend->Copy(to.view().data, from.view().data, 8 * 4);
  };
  copy(small, 8);
  copy(large, 100'000);
  copy(large, 4);
  EXPECT_EQ(small.Read(), std::vector<float>(8, 1.0f));
  EXPECT_EQ(large.Read(), (std::vector<float>{3, 3, 3, 3, 2, 2, 2, 2}));
}

// Operations wait for each other until Submit; their lists, and small copies, go up together.
TEST(EmulatedBackend, ListsOfManyOperationsGoUpInOneCopy) {
  const auto backend = Make("cuda-emulated");
  const Tensor table(*backend, {4, 8}, Random(43).Normal(32)), out(*backend, {2, 8});
  const auto& given = emulator::Work::Given();
  const int64_t uploads = given.uploads(), launches = given.Launches(Gather);
  const TensorView tables[] = {table};
  for (int32_t row = 0; row < 3; ++row) {
    backend->Copy(table.view().row<float>(row), std::vector<float>(8, 0.5f).data(), 8 * 4);
    backend->Gather(out, tables, {}, std::vector<GatherRow>{{0, row}, {0, row + 1}});
  }
  EXPECT_EQ(given.Launches(Gather), launches) << "they wait";
  backend->Submit();
  EXPECT_EQ(given.Launches(Gather), launches + 3);
  EXPECT_EQ(given.uploads(), uploads + 1);
  const std::vector<float> got = out.Read();
  EXPECT_EQ(std::vector<float>(got.begin(), got.begin() + 8), std::vector<float>(8, 0.5f));
  const std::vector<float> rows = table.Read();
  EXPECT_TRUE(std::equal(got.begin() + 8, got.end(), rows.begin() + 24));
}

// Gathers two rows of a table in each of so many steps, from `first` on.
void GatherInSteps(Backend& backend, const Tensor& table, std::span<const Tensor> outs,
                   std::vector<int64_t>& submitted) {
  const TensorView tables[] = {table};
  for (const Tensor& out : outs) {
    const auto row = static_cast<int32_t>(submitted.size());
    backend.Gather(out, tables, {}, std::vector<GatherRow>{{0, row}, {0, row + 1}});
    submitted.push_back(backend.Submit());
  }
}

// A device that does nothing until it must: the first of two steps is done when it is awaited, the
// second is not begun, and its lists have not taken the place of the first's.
TEST(EmulatedBackend, AwaitingAStepLeavesTheNextToTheDevice) {
  const auto backend = Make("cuda-emulated");
  const Tensor table(*backend, {8, 4}, Random(45).Normal(32));
  const std::vector<float> rows = table.Read();
  const Tensor outs[] = {Tensor(*backend, {2, 4}), Tensor(*backend, {2, 4}),
                         Tensor(*backend, {2, 4})};
  std::vector<int64_t> submitted;
  GatherInSteps(*backend, table, std::span(outs).first(2), submitted);
  const auto holds = [&](int step) {  // without waiting: emulated memory is the host's
    return std::memcmp(outs[step].view().data, rows.data() + 4 * step, 8 * 4) == 0;
  };
  EXPECT_FALSE(holds(0));
  backend->Await(submitted[0]);
  EXPECT_TRUE(holds(0));
  EXPECT_FALSE(holds(1));
  GatherInSteps(*backend, table, std::span(outs).last(1), submitted);
  backend->Await(submitted[1]);
  EXPECT_TRUE(holds(1));
  EXPECT_FALSE(holds(2));
  backend->Synchronize();
  EXPECT_TRUE(holds(2));
}

// A device that is always done: what the second step drew has not taken the place of the first's.
TEST(EmulatedBackend, ResultsOfAStepWaitForTheHostWhileTheNextIsDone) {
  emulator::SetPace(emulator::Pace::kEager);
  const auto backend = Make("cuda-emulated");
  emulator::SetPace(emulator::Pace::kLazy);
  const Tensor logits(*backend, {4, 4}, {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1});
  std::vector<int64_t> submitted;
  std::vector<std::vector<TokenDraw>> draws(4, std::vector<TokenDraw>(1));
  const std::vector<SampleSpec> greedy(1, {.logprobs = 1});
  for (int32_t step = 0; step < 4; ++step) {
    backend->Sample(draws[step], logits.view().Rows(step, 1), 4, greedy);
    submitted.push_back(backend->Submit());
    if (step == 0) continue;
    backend->Await(submitted[step - 1]);
    EXPECT_EQ(draws[step - 1][0].id, step - 1);
    EXPECT_EQ(draws[step - 1][0].top.size(), 1) << "taken once";
    EXPECT_TRUE(draws[step][0].top.empty()) << "not yet taken";
  }
}

// Two streams of a device have their own order, and that which is asked for.
TEST(EmulatedBackend, WhatAnotherStreamWasGivenIsThereForWhatComesAfterIt) {
  const auto backend = Make("cuda-emulated");
  const auto beside = backend->MakeBeside().value();
  const Tensor first(*backend, {1, 8}), second(*beside, {1, 8}), third(*backend, {1, 8});
  const std::vector<float> values = Random(46).Normal(8);
  backend->Copy(first.view().data, values.data(), 8 * 4);
  beside->After(*backend, backend->Submit());
  beside->Copy(second.view().data, first.view().data, 8 * 4);
  EXPECT_EQ(second.Read(), values) << "the first stream's work, though nobody waited for it";
  beside->Copy(second.view().data, std::vector<float>(8, 3.0f).data(), 8 * 4);
  const int64_t copied = beside->Submit();
  backend->Copy(third.view().data, second.view().data, 8 * 4);  // too early
  EXPECT_EQ(third.Read(), values) << "the other stream has no reason to be done";
  backend->After(*beside, copied);
  backend->Copy(third.view().data, second.view().data, 8 * 4);
  EXPECT_EQ(third.Read(), std::vector<float>(8, 3.0f));
}

TEST(EmulatedBackend, AnotherStreamTakesOfTheSameMemory) {
  const auto backend = Make("cuda-emulated");
  const int64_t before = backend->Memory()->free;
  const auto beside = backend->MakeBeside().value();
  const auto buffer = beside->Allocate(1 << 20).value();
  EXPECT_LE(backend->Memory()->free, before - (1 << 20) - (512 << 10));
  EXPECT_EQ(backend->Memory()->free, beside->Memory()->free);
}

// A part of steps that recurs is replayed over the lists of the present step.
TEST(EmulatedBackend, PartsAreReplayedOverNewLists) {
  const auto backend = Make("cuda-emulated");
  const std::vector<float> values = Random(44).Normal(9 * 8);
  const Tensor table(*backend, {9, 8}, values), out(*backend, {2, 8});
  const TensorView tables[] = {table};
  for (int32_t row = 0; row < 8; ++row) {
    backend->BeginPart({.kind = PartKind::kDecoder, .rows = 2});
    backend->Gather(out, tables, {}, std::vector<GatherRow>{{0, row}, {0, row + 1}});
    EXPECT_EQ(out.Read(), std::vector<float>(&values[row * 8], &values[(row + 2) * 8]));
  }
  EXPECT_EQ(backend->part_counts().replayed, 6);
  EXPECT_EQ(backend->part_counts().differed, 0);
}

TEST(EmulatedBackend, SaysWhatItsMemoryHoldsAndRefusesMore) {
  emulator::SetDeviceBytes(1 << 20);
  const auto backend = Make("cuda-emulated");
  emulator::SetDeviceBytes(int64_t{4} << 30);
  const DeviceMemory before = backend->Memory().value();
  EXPECT_EQ(before.total, 1 << 20);
  EXPECT_LE(before.free, (1 << 20) - (512 << 10)) << "scratch and uploads are taken at start";
  {
    const auto buffer = backend->Allocate(100'000).value();
    EXPECT_LE(backend->Memory()->free, before.free - 100'000);
  }
  EXPECT_EQ(backend->Memory()->free, before.free);
  const absl::Status refused = backend->Allocate(1 << 20).status();
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()),
              ::testing::AllOf(::testing::HasSubstr("cannot allocate 1048576 bytes"),
                               ::testing::HasSubstr(std::to_string(before.free) + " free of")));
}

// Weights and KV memory of E4M3 are for devices that multiply, or convert, the type.
TEST(EmulatedBackend, RefusesE4M3WhereTheDeviceHasNone) {
  ::catserve::testing::HostMatrix w(DType::kF32, 1, 1, {1});
  for (const int capability : {80, 89}) {
    emulator::SetComputeCapability(capability);
    const auto backend = Make("cuda-emulated");
    emulator::SetComputeCapability(90);
    EXPECT_EQ(backend->HoldsKv(DType::kE4M3), capability >= 89);
    const absl::Status refused = backend->Pack(w.view(), WeightFormat::kE4M3).status();
    EXPECT_TRUE(absl::IsUnimplemented(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()),
                ::testing::AllOf(::testing::HasSubstr("need a GPU of compute capability 9.0;"),
                                 ::testing::HasSubstr(capability == 80 ? "has 8.0" : "has 8.9"),
                                 ::testing::HasSubstr("hold them as I8")));
  }
}

}  // namespace
}  // namespace catserve::cuda

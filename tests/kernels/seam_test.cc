// The plain parts of the seam: checks, views, memory, and the factory.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend_factory.h"
#include "kernels/backend_lost.h"
#include "kernels/bfloat16.h"
#include "kernels/check.h"
#include "kernels/kv_page.h"
#include "tests/kernels/device.h"

namespace catserve {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::HostMatrix;
using testing::Make;
using testing::Tensor;

TEST(CheckTest, PassesSilentlyAndEvaluatesOnce) {
  int calls = 0;
  CATSERVE_CHECK(++calls > 0) << "never printed";
  EXPECT_EQ(calls, 1);
}

TEST(CheckDeathTest, SaysWhereWhatAndWhatToDo) {
  const int pages = 3;
  EXPECT_DEATH(CATSERVE_CHECK(pages > 4) << "give it " << 4 << " pages",
               "seam_test.cc:[0-9]+: check failed: pages > 4: give it 4 pages");
}

TEST(BackendLostDeathTest, SaysWhatFailedAndEndsTheProcess) {
  EXPECT_EXIT(BackendLost("copying memory", "out of order"),
              ::testing::ExitedWithCode(kExitBackendLost),
              "^catserve: the GPU failed while copying memory: out of order; see the driver's log");
}

TEST(BackendLostDeathTest, TellsWhoeverListensFirst) {
  const auto lose = [] {
    OnBackendLost(
        [](const std::string& message) { std::fprintf(stderr, "heard: %s", message.c_str()); });
    BackendLost("waiting for its work", "unplugged");
  };
  EXPECT_EXIT(lose(), ::testing::ExitedWithCode(kExitBackendLost),
              "^heard: the GPU failed while waiting for its work: unplugged");
}

// Rounding up must not carry over a number's end: from no number to zero, or from a scale to one
// that does not hold the largest.
TEST(KvScaleTest, IsTheNextBF16AndNoNumberStaysNone) {
  for (const uint32_t bits : {0x7f800001u, 0x7fc00000u, 0x7fffffffu, 0xff800001u, 0xffffffffu}) {
    EXPECT_TRUE(std::isnan(FloatFromBF16(KvScaleBits(std::bit_cast<float>(bits), 127)))) << bits;
  }
  for (const float largest : {1e-35f, 0.3f, 1.0f, 127.0f, 254.1f, 3e38f}) {
    const float scale = FloatFromBF16(KvScaleBits(largest, 127));
    EXPECT_GE(scale, largest / 127);
    EXPECT_LE(scale, largest / 127 * (1 + 1.0f / 128)) << largest;
  }
  EXPECT_EQ(KvScaleBits(0, 127), 0);
}

TEST(TensorViewTest, SlicesRowsAndColumns) {
  float data[12];
  for (int i = 0; i < 12; ++i) data[i] = static_cast<float>(i);
  const TensorView view(data, DType::kF32, {3, 4});
  EXPECT_EQ(view.size(), 12);
  const TensorView part = view.Rows(1, 2).Columns(1, 2);
  EXPECT_EQ(part.rows(), 2);
  EXPECT_EQ(part.row_size(), 2);
  EXPECT_EQ(part.row<float>(0)[0], 5.0f);
  EXPECT_EQ(part.row<float>(1)[1], 10.0f);
  EXPECT_EQ(TensorView().size(), 0);
  EXPECT_DEATH(view.Rows(2, 2), "rows \\[2, \\+2\\) of 3");
  EXPECT_DEATH(view.Columns(4, 1), "columns");
}

TEST(TensorViewTest, NamesDTypesAsSafetensorsDoes) {
  EXPECT_STREQ(Name(DType::kF32), "F32");
  EXPECT_STREQ(Name(DType::kBF16), "BF16");
  EXPECT_STREQ(Name(DType::kF16), "F16");
  EXPECT_STREQ(Name(DType::kI32), "I32");
}

TEST(FactoryTest, NamesTheBackendsThereAre) {
  const auto unknown = MakeBackend("tpu", 1);
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("tpu"));
  EXPECT_THAT(std::string(unknown.status().message()),
              AllOf(HasSubstr("has cpu, cpu-"), HasSubstr("cpu-reference")));
}

TEST(FactoryTest, RefusesImpossibleThreadCounts) {
  for (const int threads : {-1, 1025}) {
    const auto backend = MakeBackend("cpu", threads);
    EXPECT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(backend.status().message()), HasSubstr("threads"));
  }
}

// The forms in the order of their speed; "cpu" is the first that starts.
TEST(FactoryTest, AFormStartsOrSaysWhatToDo) {
  std::string fastest;
  for (const char* name :
       {"cpu-avx512-bf16", "cpu-avx512-vnni", "cpu-avx512", "cpu-avx2", "cpu-reference"}) {
    const auto form = MakeBackend(name, 1);
    if (!form.ok()) {
      EXPECT_EQ(form.status().code(), absl::StatusCode::kUnavailable) << name;
      EXPECT_THAT(std::string(form.status().message()), HasSubstr("--backend=cpu takes")) << name;
      continue;
    }
    std::string description = name;
    std::replace(description.begin(), description.end(), '-', ' ');
    EXPECT_EQ((*form)->Description(), description);
    if (fastest.empty()) fastest = description;
  }
  EXPECT_EQ(Make("cpu")->Description(), fastest);
  EXPECT_TRUE(MakeBackend("cpu-reference", 1).ok()) << "the reference runs everywhere";
  EXPECT_TRUE(MakeBackend("cpu", 0).ok());
}

TEST(CpuMemoryTest, IsZeroFilledAndAligned) {
  const auto backend = Make("cpu");
  for (const int64_t bytes : {0, 1, 63, 64, 65, 4097, 5 << 20}) {
    const auto buffer = backend->Allocate(bytes).value();
    EXPECT_EQ(buffer->bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
    const auto* data = static_cast<const uint8_t*>(buffer->data());
    for (int64_t i = 0; i < bytes; ++i) ASSERT_EQ(data[i], 0) << i;
  }
}

TEST(CpuMemoryTest, SaysHowMuchWasAskedForAndHowMuchThereIs) {
  const auto backend = Make("cpu");
  for (const int64_t bytes : {int64_t{1} << 50, std::numeric_limits<int64_t>::max()}) {
    const auto buffer = backend->Allocate(bytes);
    EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(buffer.status().message()), HasSubstr(std::to_string(bytes)));
    EXPECT_THAT(std::string(buffer.status().message()), HasSubstr("the machine has"));
  }
  EXPECT_EQ(backend->Allocate(-1).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CpuMemoryTest, RefusesMatricesAndTablesWhoseSizeOverflows) {
  const auto backend = Make("cpu");
  float value = 0;
  TensorView huge(&value, DType::kF32, {int64_t{1} << 40, int64_t{1} << 40});
  EXPECT_EQ(backend->Pack(huge).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(backend->Upload(huge).ok());
}

TEST(CpuMemoryTest, UploadsAColumnBlockDensely) {
  const auto backend = Make("cpu");
  HostMatrix host(DType::kBF16, 2, 4, {1, 2, 3, 4, 5, 6, 7, 8});
  const auto table = backend->Upload(host.view().Columns(1, 2)).value();
  ASSERT_EQ(table->bytes(), 8);
  const auto* bits = static_cast<const uint16_t*>(table->data());
  EXPECT_EQ(FloatFromBF16(bits[0]), 2.0f);
  EXPECT_EQ(FloatFromBF16(bits[3]), 7.0f);
}

TEST(BackendDeathTest, AMismatchedShapeAbortsAndSaysWhich) {
  const auto backend = Make("cpu", 1);
  HostMatrix host(DType::kF32, 2, 3, {1, 2, 3, 4, 5, 6});
  const auto w = backend->Pack(host.view()).value();
  Tensor out(*backend, {1, 2}), x(*backend, {1, 4});
  EXPECT_DEATH(backend->MatMul(out, x, *w, false), "x has 4 columns where 3 are needed");
  const GatherRow rows[] = {{1, 0, false}};
  const TensorView tables[] = {x};
  EXPECT_DEATH(backend->Gather(x, tables, TensorView(), rows), "table 1 of 1");
}

TEST(BackendDeathTest, AttentionChecksItsPages) {
  const auto backend = Make("cpu", 1);
  Tensor pool(*backend, {2, 2, 64}), q(*backend, {1, 4}), out(*backend, {1, 4});
  const KvLayer kv{pool.view().data, DType::kF32, 2, 1, 4};
  const HeadSpec spec{.heads = 1, .kv_heads = 1, .head_dim = 4};
  const int32_t ids[] = {0, 2};
  const AttentionRow beyond_list[] = {{0, 0, 0, 33}};
  const AttentionRow beyond_pool[] = {{0, 0, 0, 17}};
  EXPECT_DEATH(backend->PagedAttention(out, q, spec, kv, beyond_list, ids), "33 entries from page");
  EXPECT_DEATH(backend->PagedAttention(out, q, spec, kv, beyond_pool, ids), "page 2 of 2");
}

}  // namespace
}  // namespace catserve

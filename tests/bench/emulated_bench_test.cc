// What the benchmarks for a GPU do, done on an emulated one with next to nothing to do: every case
// runs to its end and gives its figures. What they say is of no interest.
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <sstream>
#include <string>

#include "bench/device_kernels.h"
#include "bench/engine_runs.h"
#include "bench/random_checkpoint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/emulator/capture.h"
#include "kernels/cuda/emulator/memory.h"
#include "tests/kernels/device.h"

namespace catserve::testing {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::Lt;
using ::testing::Pair;

constexpr ProbeSizes kProbe{.copy_bytes = 4096,
                            .outputs = 32,
                            .inputs = 32,
                            .rows = 16,
                            .tries = 1,
                            .head_start_seconds = 0};

// The `name=value unit` lines of a benchmark's output.
std::map<std::string, double> Figures(const std::string& output) {
  std::map<std::string, double> figures;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    const size_t equals = line.find('=');
    if (equals != std::string::npos) figures[line.substr(0, equals)] = std::atof(&line[equals + 1]);
  }
  return figures;
}

DeviceKernelSizes TinySizes() {
  DeviceKernelSizes sizes;
  sizes.decoder = {.dim = 64, .heads = 2, .kv_heads = 2, .head_dim = 32, .feed_forward = 32};
  sizes.compressor = sizes.twin = {.dim = 32, .heads = 1, .kv_heads = 1, .head_dim = 32};
  sizes.vocab_size = 50;
  sizes.tokens = 64;
  sizes.batch = 2;
  sizes.layers = 2;
  sizes.chunk_sizes = {8, 16};
  sizes.product_rows = {1, 9};
  sizes.step_rows = 2;
  sizes.many_rows = 3;
  sizes.rotated_bytes = 4096;
  sizes.probe = kProbe;
  return sizes;
}

std::map<std::string, double> KernelFigures(const DeviceKernelSizes& sizes,
                                            const std::string& cases) {
  const auto backend = Make("cuda-emulated");
  ::testing::internal::CaptureStdout();
  const absl::Status status = RunDeviceKernels(*backend, sizes, cases);
  const std::string output = ::testing::internal::GetCapturedStdout();
  EXPECT_TRUE(status.ok()) << status;
  return Figures(output);
}

TEST(EmulatedBench, EveryKernelIsTimedBesideTheCeilings) {
  const auto figures = KernelFigures(TinySizes(), "");
  // 3 x 3 of paged attention, 2 of the compressor's, 7 x 2 products, 4 draws, 4 x 2 of rows: time,
  // fraction of the floor, and the share that was replayed; of all once more.
  EXPECT_EQ(figures.size(), 3 + 1 + 3 * (9 + 2 + 14 + 4 + 8));
  EXPECT_THAT(figures, Each(Pair(::testing::_, AllOf(Gt(0.0), Lt(1e15)))));
  for (const char* name :
       {"copy_bandwidth", "matrix_rate", "matrix_rate_e4m3", "attention.batch2.c8.BF16.time",
        "sample.plain.rows9.time", "attention.batch1.dense.I8.floor_fraction",
        "product.gate_up.I8.rows1.floor_fraction", "product.gate_up.F8_E4M3.rows9.floor_fraction",
        "compressor_attention.c16.time", "rms_norm.rows3.floor_fraction"}) {
    EXPECT_EQ(figures.count(name), 1) << name;
  }
}

TEST(EmulatedBench, EveryTimedPartOfAKernelIsAReplay) {
  int operations = 0;
  for (const auto& [name, value] : KernelFigures(TinySizes(), "")) {
    if (!name.ends_with(".replayed_fraction") && name != "kernels.replayed") continue;
    EXPECT_EQ(value, 1.0) << name;
    ++operations;
  }
  EXPECT_EQ(operations, 1 + 9 + 2 + 14 + 4 + 8);
}

TEST(EmulatedBench, ADeviceThatRecordsNothingIsTimedAsItIsAndSaysSo) {
  cuda::emulator::Capture::refused = true;
  const auto figures = KernelFigures(TinySizes(), "sampling");
  cuda::emulator::Capture::refused = false;
  EXPECT_EQ(figures.at("kernels.replayed"), 0);
  EXPECT_EQ(figures.at("sample.greedy.rows9.replayed_fraction"), 0);
  EXPECT_GT(figures.at("sample.greedy.rows9.time"), 0);
}

TEST(EmulatedBench, MoreRowsThanStepsReplayAreLaunchedAndSaySo) {
  DeviceKernelSizes sizes = TinySizes();
  sizes.many_rows = 513;
  const auto figures = KernelFigures(sizes, "rows");
  EXPECT_EQ(figures.count("silu_gate.rows2.replayed_fraction"), 1);
  EXPECT_EQ(figures.count("silu_gate.rows513.time"), 1);
  EXPECT_EQ(figures.count("silu_gate.rows513.replayed_fraction"), 0);
}

TEST(EmulatedBench, ADeviceWithoutE4M3HasNoFiguresOfIt) {
  cuda::emulator::SetComputeCapability(80);
  const auto figures = KernelFigures(TinySizes(), "products");
  cuda::emulator::SetComputeCapability(90);
  EXPECT_EQ(figures.count("matrix_rate_e4m3"), 0);
  for (const auto& [name, value] : figures) EXPECT_EQ(name.find("E4M3"), name.npos) << name;
  EXPECT_EQ(figures.count("product.gate_up.I8.rows9.time"), 1);
}

// Decodes and prefills tokens of a random model, with its figures.
std::map<std::string, double> EngineFigures(const std::string& shape, EngineRuns runs) {
  const std::string directory = ::testing::TempDir() + "emulated_bench_" + shape;
  EXPECT_TRUE(WriteRandomCheckpoint(shape, directory).ok());
  runs.name = "tiny";
  runs.directory = directory;
  const auto backend = Make("cuda-emulated");
  ::testing::internal::CaptureStdout();
  const absl::Status status = RunEngines(*backend, {1e9, 1e9}, runs);
  const std::string output = ::testing::internal::GetCapturedStdout();
  EXPECT_TRUE(status.ok()) << status;
  std::filesystem::remove_all(directory);
  return Figures(output);
}

TEST(EmulatedBench, EnginesAreTimedWithEqualAndWithSpreadLengths) {
  for (const Lengths lengths : {Lengths::kLockStep, Lengths::kSpread}) {
    const auto figures = EngineFigures("cat-32", {.batches = {2},
                                                  .chunk_sizes = {4},
                                                  .prompt_tokens = 10,
                                                  .generated_tokens = 6,
                                                  .lengths = lengths,
                                                  .step_tokens = 128});
    EXPECT_EQ(figures.size(), 2 + 7);
    for (const auto& [name, value] : figures) {
      // What KV memory held halfway may be looked up when all has been given back.
      if (!name.ends_with(".kv_per_sequence")) {
        EXPECT_THAT(value, AllOf(Gt(0.0), Lt(1e15))) << name;
      }
    }
    for (const char* name : {"tiny.c4.prefill_10", "tiny.c4.decode.batch2.floor_fraction",
                             "tiny.c4.decode.batch2", "tiny.c4.decode.batch2.kv_per_sequence",
                             "tiny.c4.decode.batch2.prompts", "tiny.c4.decode.batch2.replayed"}) {
      EXPECT_EQ(figures.count(name), 1) << name;
    }
  }
}

// As the authors' are: libraries refuse 8-bit products whose outputs are no multiple of 16.
TEST(RandomCheckpoint, ItsVocabularyIsPadded) {
  const std::string directory = ::testing::TempDir() + "padded_vocabulary";
  ASSERT_TRUE(WriteRandomCheckpoint("cat-32", directory).ok());
  const auto backend = Make("cpu");
  const auto model = Model::Load(directory, *backend).value();
  std::filesystem::remove_all(directory);
  EXPECT_EQ(model->config().vocab_size, 64);
  EXPECT_EQ(model->weights().output->out_features(), 256);
}

TEST(EmulatedBench, KvMemoryThatABackendDoesNotHoldIsRefused) {
  const auto backend = Make("cpu");
  const absl::Status refused = RunEngines(*backend, {1e9, 1e9}, {.kv_dtype = DType::kE4M3});
  EXPECT_TRUE(absl::IsInvalidArgument(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("F8_E4M3"));
}

TEST(EmulatedBench, PromptsAloneOfADenseModel) {
  const auto figures = EngineFigures("dense-16", {.prompt_tokens = 20});
  EXPECT_EQ(figures.size(), 2);
  EXPECT_EQ(figures.count("tiny.dense.prefill_20"), 1);
}

TEST(EmulatedBench, OnePartAloneAndAnUnknownOne) {
  const auto backend = Make("cuda-emulated");
  ::testing::internal::CaptureStdout();
  EXPECT_TRUE(RunDeviceKernels(*backend, TinySizes(), "ceilings").ok());
  EXPECT_EQ(Figures(::testing::internal::GetCapturedStdout()).size(), 3);
  const absl::Status unknown = RunDeviceKernels(*backend, TinySizes(), "attentions");
  EXPECT_TRUE(absl::IsInvalidArgument(unknown));
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("ceilings, attention, products"));
}

}  // namespace
}  // namespace catserve::testing

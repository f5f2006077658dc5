// What the engine is started with, and how errors name a request's fields.
#include "server/engine_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/cord.h"
#include "catserve/v1/generation.pb.h"
#include "engine/admission.h"
#include "server/field_names.h"
#include "server/kv_size.h"
#include "tests/engine/model/checkpoint_writer.h"

namespace catserve::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

ModelGeometry Cat() {
  return {.kind = ModelKind::kCat,
          .chunk_sizes = {4, 16},
          .block_size = 256,
          .vocab_size = 100,
          .bytes_per_entry = 64};
}

// One token of the compressor is a quarter of a decoder row: by hand, layers x dim x (2 x (heads +
// kv_heads) x head_dim + 3 x feed_forward) are 2 x 32 x (2 x 4 x 16 + 3 x 64) = 20,480 and
// 1 x 16 x (2 x 4 x 8 + 3 x 64) + 16 x 32 = 4,608 operations.
ModelDescription Description() {
  ModelDescription model;
  model.geometry = Cat();
  model.decoder = {32, 2, 2, 2, 16, 64};
  model.compressor = {16, 1, 2, 2, 8, 64};
  return model;
}

TEST(StepTokens, HoldEverySlotAndTwoPrefillsOfTheLargestChunk) {
  const ModelDescription model = Description();
  EXPECT_DOUBLE_EQ(CompressorTokenRows(model), 4608.0 / 20480);
  EXPECT_EQ(StepTokensDefault(model, 1), 256);
  // 2 x 1000 + 2 x (16 + 2 + 16 x 0.225), rounded up.
  EXPECT_EQ(StepTokensDefault(model, 1000), 2000 + 44);
  ModelDescription dense = model;
  dense.geometry.kind = ModelKind::kDense;
  dense.geometry.chunk_sizes = {};
  EXPECT_EQ(StepTokensDefault(dense, 1000), 2000 + 6);
}

TEST(StepTokens, AreTheOperatorsOrTheDefaultAndTheExecutorHoldsThem) {
  ServedModel model;
  model.description = Description();
  ServerOptions options;
  options.slots = 4;
  options.queue_requests_max = 7;
  EngineOptions engine = MakeEngineOptions(options, model);
  EXPECT_EQ(engine.step_tokens_max, 256);
  EXPECT_EQ(engine.step_rows_max, 1024);
  EXPECT_EQ(engine.slots, 4);
  EXPECT_EQ(engine.queue_requests_max, 7);
  EXPECT_EQ(engine.compressor_token_rows, CompressorTokenRows(model.description));
  options.step_tokens_max = 300;
  EXPECT_EQ(MakeEngineOptions(options, model).step_tokens_max, 300);
  options.step_tokens_max = 5000;
  EXPECT_EQ(MakeEngineOptions(options, model).step_rows_max, 5000);
  options.step_tokens_max = 0;
  options.slots = 4096;
  engine = MakeEngineOptions(options, model);
  engine.kv_pages = 50;
  EXPECT_TRUE(ValidateOptions(Cat(), engine).ok()) << ValidateOptions(Cat(), engine);
}

TEST(KvSize, TakesAQuarterOfWhatIsFreeAndNoMoreThanSlotsAndCacheCanUse) {
  // Most entries up to 256 tokens: 68 at C = 4 (5 pages), 32 at C = 16 (2 pages).
  EXPECT_EQ(*KvPages(Cat(), 0, 10, RoomOnHost(int64_t{1} << 40)), 2 * 50);
  EXPECT_EQ(*KvPages(Cat(), 0, 10, RoomOnHost(4 * 20 * 16 * 64)), 20);
  EXPECT_EQ(*KvPages(Cat(), 7 * 16 * 64 + 5, 10, {}), 7);
  const auto little = KvPages(Cat(), 16 * 64, 10, {});
  EXPECT_THAT(Message(little.status()), AllOf(HasSubstr("--kv_memory_bytes=1024"),
                                              HasSubstr("--kv_memory_bytes=2048 or more")));
  const auto full = KvPages(Cat(), 0, 10, RoomOnHost(4096));
  EXPECT_THAT(Message(full.status()), AllOf(HasSubstr("a quarter of the 4096 bytes"),
                                            HasSubstr("--kv_memory_bytes=2048 or more")));
  const auto much = KvPages(Cat(), int64_t{1} << 50, 10, {});
  EXPECT_THAT(Message(much.status()), AllOf(HasSubstr("--kv_memory_bytes=1125899906842624 gives"),
                                            HasSubstr("--kv_memory_bytes=2199023254528 or less")));
  EXPECT_EQ(FullContextSequences(Cat(), 30), "6 at chunk size 4, 15 at 16");
}

TEST(KvSize, ADenseModelNeedsAnEntryForEachToken) {
  ModelGeometry dense = Cat();
  dense.kind = ModelKind::kDense;
  dense.chunk_sizes = {};
  EXPECT_EQ(*KvPages(dense, 0, 2, RoomOnHost(int64_t{1} << 40)), 2 * 32);
  EXPECT_EQ(FullContextSequences(dense, 32), "2");
}

TEST(KvSize, OnADeviceIsWhatItsShareLeaves) {
  constexpr int64_t kPage = 16 * 64, kMiB = int64_t{1} << 20;
  // All but 3 pages' bytes are taken of what need not stay free: 25% of the memory.
  EXPECT_EQ(*KvPages(Cat(), 0, 10, RoomOnDevice(4096 * kMiB + 3 * kPage, 16384 * kMiB, 0.75)), 3);
  EXPECT_EQ(*KvPages(Cat(), 0, 10, RoomOnDevice(16384 * kMiB, 16384 * kMiB, 1)), 2 * 50);
  // Some always does.
  EXPECT_EQ(*KvPages(Cat(), 0, 10, RoomOnDevice(256 * kMiB + 9 * kPage, 16384 * kMiB, 1)), 9);
  const auto full = KvPages(Cat(), 0, 10, RoomOnDevice(5 * kMiB, 40 * kMiB, 0.875));
  EXPECT_THAT(Message(full.status()),
              AllOf(HasSubstr("--gpu_memory_fraction=0.875 leaves (0 bytes: 5242880 free of 41943"),
                    HasSubstr("gives 0 pages"), HasSubstr("--kv_memory_bytes=2048 or more")));
}

TEST(AvailableBytes, AreTheMachinesOrWhatTheControlGroupHasLeft) {
  const TempDirectory root;
  const auto write = [&](const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root.File(path)).parent_path());
    root.Write(path, text);
  };
  write("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable:   500 kB\nCached: 1 kB");
  EXPECT_EQ(AvailableBytes(root.path()), 500 * 1024);
  write("sys/fs/cgroup/memory.max", "max\n");
  write("sys/fs/cgroup/memory.current", "600000\n");
  write("sys/fs/cgroup/memory.stat", "anon 1\nfile 250000\ninactive_file 200000\n");
  EXPECT_EQ(AvailableBytes(root.path()), 500 * 1024);
  write("sys/fs/cgroup/memory.max", "700000\n");
  EXPECT_EQ(AvailableBytes(root.path()), 700000 - 600000 + 200000);
  write("sys/fs/cgroup/memory.max", "100000\n");
  EXPECT_EQ(AvailableBytes(root.path()), 0);
  EXPECT_GT(AvailableBytes(), 0);
}

std::string Named(const google::protobuf::Descriptor* request, const char* message) {
  return Message(NameFieldsByPath(*request, absl::InvalidArgumentError(message)));
}

TEST(FieldNames, AreThePathFromTheRequest) {
  const auto* generate = v1::GenerateRequest::descriptor();
  const struct {
    const char* says;
    const char* becomes;
  } cases[] = {
      {"top_p 2 is out of range", "sampling.top_p 2 is out of range"},
      {"n 0 is out of range", "sampling.n 0 is out of range"},
      {"stop has 17 strings", "stopping.stop has 17 strings"},
      {"auto.chunk_size_min 16 is more than auto.chunk_size_max 4",
       "budget.auto.chunk_size_min 16 is more than budget.auto.chunk_size_max 4"},
      {"prompt (9 tokens) plus max_tokens (3) is too long; lower max_tokens or n",
       "prompt (9 tokens) plus stopping.max_tokens (3) is too long; lower stopping.max_tokens or "
       "sampling.n"},
      {"prompt is missing: set prompt.text or prompt.token_ids",
       "prompt is missing: set prompt.text or prompt.token_ids"},
      {"priority 101; to stop it send a text of 1.5 kB.", nullptr},
      {"stopping.stop: not valid UTF-8", nullptr},
      {"", nullptr},
  };
  for (const auto& one : cases) {
    EXPECT_EQ(Named(generate, one.says), one.becomes == nullptr ? one.says : one.becomes);
  }
  EXPECT_EQ(Named(v1::ScoreRequest::descriptor(), "chunk_size 3 is not offered"),
            "chunk_size 3 is not offered");
}

TEST(FieldNames, OtherStatusesStayAsTheyAre) {
  absl::Status full = absl::ResourceExhaustedError("n requests wait for max_tokens");
  full.SetPayload("retry after", absl::Cord("1500"));
  EXPECT_EQ(NameFieldsByPath(*v1::GenerateRequest::descriptor(), full), full);
  EXPECT_TRUE(NameFieldsByPath(*v1::GenerateRequest::descriptor(), absl::OkStatus()).ok());
}

}  // namespace
}  // namespace catserve::testing

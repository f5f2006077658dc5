// The server's small parts: flags, model card, log lines, sizes.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "server/dial.h"
#include "server/flags.h"
#include "server/log.h"
#include "server/model_card.h"
#include "server/port_file.h"
#include "server/usage.h"
#include "tests/engine/model/checkpoint_writer.h"

namespace catserve::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

TEST(Flags, ReadsValuesDashesAndPairs) {
  const auto options = ReadServerFlags({"--model=m", "--kv-dtype", "BF16", "--drain_seconds=1.5",
                                        "--slots=3", "--slots=5", "--metrics_address="});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->model_dir, "m");
  EXPECT_EQ(options->kv_dtype, "BF16");
  EXPECT_EQ(options->slots, 5);
  EXPECT_EQ(options->drain, absl::Milliseconds(1500));
  EXPECT_EQ(options->metrics_address, "");
  // Flags are the process's: put them back.
  ASSERT_TRUE(ReadServerFlags({"--model=m", "--kv_dtype=F32", "--drain_seconds=30", "--slots=32",
                               "--metrics_address=127.0.0.1:9500"})
                  .ok());
}

TEST(Flags, EachMistakeNamesTheFlagAndTheRemedy) {
  const std::string good_model = "--model=m";
  const struct {
    std::vector<std::string> args;
    const char* flag;
    const char* remedy;
    std::string undo;
  } cases[] = {
      {{"--model="}, "--model", "--model=DIRECTORY", good_model},
      {{good_model, "--modle=x"}, "--modle", "--model", good_model},
      {{good_model, "stray"}, "stray", "--name=value", good_model},
      {{good_model, "--slots"}, "--slots", "needs a value", good_model},
      {{good_model, "--slots=many"}, "--slots=many", "1 to 4096", "--slots=32"},
      {{good_model, "--slots=0"}, "--slots=0", "1 to 4096", "--slots=32"},
      {{good_model, "--listen_address=nowhere"},
       "--listen_address",
       "host:port",
       "--listen_address=127.0.0.1:8500"},
      {{good_model, "--listen_address=a:70000"},
       "--listen_address",
       "0 to 65535",
       "--listen_address=127.0.0.1:8500"},
      {{good_model, "--metrics_address=x"},
       "--metrics_address",
       "host:port",
       "--metrics_address=127.0.0.1:9500"},
      {{good_model, "--backend=tpu"}, "--backend", "cpu-reference", "--backend=cpu"},
      {{good_model, "--kv_dtype=F8"}, "--kv_dtype", "BF16", "--kv_dtype=F32"},
      {{good_model, "--kv_dtype=F8_E4M3"},
       "--kv_dtype=F8_E4M3 needs --backend=cuda",
       "--kv_dtype=I8",
       "--kv_dtype=I8"},
      {{good_model, "--gpu_memory_fraction=1.5"},
       "--gpu_memory_fraction",
       "0.05 to 1",
       "--gpu_memory_fraction=0.9"},
      {{good_model, "--default_budget=most"}, "--default_budget", "auto", "--default_budget=auto"},
      {{good_model, "--default_budget=automatic"},
       "--default_budget",
       "auto",
       "--default_budget=auto"},
      {{good_model, "--kv_memory_bytes=-1"}, "--kv_memory_bytes", "0 to", "--kv_memory_bytes=0"},
      {{good_model, "--kv_memory_bytes=9000000000000000000"},
       "--kv_memory_bytes=9000000000000000000",
       "0 to 1000000000000000",
       "--kv_memory_bytes=0"},
      {{good_model, "--queue_requests_max=0"},
       "--queue_requests_max=0",
       "1 to 1000000",
       "--queue_requests_max=256"},
      {{good_model, "--step_tokens_max=65537"},
       "--step_tokens_max=65537",
       "0 to 65536",
       "--step_tokens_max=0"},
      {{good_model, "--step_rows_max=16"}, "--step_rows_max", "--step_tokens_max", good_model},
      {{good_model, "--drain_seconds=nan"}, "--drain_seconds", "0 to", "--drain_seconds=30"},
      {{good_model, "--request_bytes_max=1"},
       "--request_bytes_max",
       "1024 to 268435456",
       "--request_bytes_max=4194304"},
  };
  for (const auto& bad : cases) {
    SCOPED_TRACE(bad.args.back());
    const auto options = ReadServerFlags(bad.args);
    ASSERT_FALSE(options.ok());
    EXPECT_THAT(Message(options.status()), AllOf(HasSubstr(bad.flag), HasSubstr(bad.remedy)));
    EXPECT_EQ(Message(options.status()).find('\n'), std::string::npos);
    ASSERT_TRUE(ReadServerFlags({good_model, bad.undo}).ok());
  }
}

ModelGeometry Cat() {
  return {.kind = ModelKind::kCat,
          .chunk_sizes = {4, 16},
          .block_size = 256,
          .vocab_size = 100,
          .bytes_per_entry = 64};
}

TEST(ModelCard, ReadsWhatItNeedsAndIgnoresTheRest) {
  const auto card = ParseModelCard(R"({"name": "tiny", "licence": ["x"],
      "dense_twin": {"path": "../d", "dim": 256, "n_layer": 4, "n_local_heads": 2, "head_dim": 64},
      "quality": [{"chunk_size": 4, "heldout_bits_per_byte": 1.5},
                  {"chunk_size": 8, "heldout_bits_per_byte": 2},
                  {"chunk_size": 16, "heldout_bits_per_byte": null}, {"chunk_size": 32}]})",
                                   "card.json");
  ASSERT_TRUE(card.ok()) << card.status();
  EXPECT_EQ(card->name, "tiny");
  EXPECT_EQ(card->dense_twin->kv_heads, 2);
  EXPECT_EQ(card->heldout_bits_per_byte, (std::map<int32_t, double>{{4, 1.5}, {8, 2.0}}));
  EXPECT_TRUE(ParseModelCard("{}", "card.json").ok());
}

TEST(ModelCard, HasAColumnForEachKindOfTask) {
  const auto card = ParseModelCard(R"({"tasks": [
      {"name": "text", "measure": "bits per byte", "better": "lower",
       "values": [{"chunk_size": 4, "value": 1.5}, {"chunk_size": 8, "value": null}],
       "dense_twin": 1.4},
      {"name": "recall_16", "measure": "accuracy", "better": "higher", "source": "ignored",
       "values": [{"chunk_size": 8, "value": 0}]}]})",
                                   "card.json");
  ASSERT_TRUE(card.ok()) << card.status();
  ASSERT_EQ(card->tasks.size(), 2u);
  EXPECT_EQ(card->tasks[0].name, "text");
  EXPECT_EQ(card->tasks[0].measure, "bits per byte");
  EXPECT_FALSE(card->tasks[0].higher_is_better);
  EXPECT_EQ(card->tasks[0].values, (std::map<int32_t, double>{{4, 1.5}}));
  EXPECT_EQ(card->tasks[0].dense_twin, 1.4);
  EXPECT_TRUE(card->tasks[1].higher_is_better);
  EXPECT_EQ(card->tasks[1].values, (std::map<int32_t, double>{{8, 0.0}}));
  EXPECT_EQ(card->tasks[1].dense_twin, std::nullopt);
}

TEST(ModelCard, OneFromBeforeThereWereTasksHasItsBitsPerByteAsTheTaskText) {
  const auto card = ParseModelCard(R"({
      "dense_twin": {"dim": 256, "n_layer": 4, "n_local_heads": 2, "head_dim": 64,
                     "heldout_bits_per_byte": 1.4},
      "quality": [{"chunk_size": 4, "heldout_bits_per_byte": 1.5}]})",
                                   "card.json");
  ASSERT_TRUE(card.ok()) << card.status();
  ASSERT_EQ(card->tasks.size(), 1u);
  EXPECT_EQ(card->tasks[0].name, "text");
  EXPECT_EQ(card->tasks[0].values, card->heldout_bits_per_byte);
  EXPECT_EQ(card->tasks[0].dense_twin, 1.4);
  const auto none = ParseModelCard(R"({"quality": [{"chunk_size": 4}]})", "card.json");
  EXPECT_TRUE(none->tasks.empty());
}

// A card whose one task is good but for what follows its name.
std::string CardWithTask(const std::string& rest) {
  return R"({"tasks": [{"name": "a", "measure": "b", )" + rest + "}]}";
}

TEST(ModelCard, AHostileTaskIsAnErrorThatNamesItsField) {
  std::string many = R"({"tasks": [)";
  for (int i = 0; i < 17; ++i) many += i == 0 ? "{}" : ",{}";
  const std::string good = R"("better": "lower", "values": [])";
  const std::pair<std::string, const char*> cases[] = {
      {R"({"tasks": {}})", "tasks must be a list of at most 16"},
      {many + "]}", "tasks must be a list of at most 16"},
      {R"({"tasks": [7]})", "tasks[0] must be an object"},
      {R"({"tasks": [{}]})", "tasks[0].name must be a string"},
      {R"({"tasks": [{"name": "a"}]})", "tasks[0].measure must be a string"},
      {R"({"tasks": [{"name": "a", "measure": "b\nc"}]})", "tasks[0].measure holds a control"},
      {R"({"tasks": [{"name": "A", "measure": "b"}]})", "tasks[0].name must be 1 to 32"},
      {R"({"tasks": [{"name": "", "measure": "b"}]})", "tasks[0].name must be 1 to 32"},
      {R"({"tasks": [{"name": ")" + std::string(33, 'a') + R"(", "measure": "b"}]})",
       "tasks[0].name must be 1 to 32"},
      {CardWithTask(R"("values": [])"), "tasks[0].better must be \"lower\" or \"higher\""},
      {CardWithTask(R"("better": "less", "values": [])"), "tasks[0].better"},
      {CardWithTask(R"("better": "lower")"), "tasks[0].values must be a list"},
      {CardWithTask(R"("better": "lower", "values": [{"value": 1}])"),
       "tasks[0].values[0].chunk_size"},
      {CardWithTask(R"("better": "lower", "values": [{"chunk_size": 4, "value": 1e999}])"),
       "is no valid JSON: a number is out of range"},
      {CardWithTask(R"("better": "lower", "values": [{"chunk_size": 4, "value": 1.1e9}])"),
       "tasks[0].values[0].value must be a number from 0 to 1e9"},
      {CardWithTask(R"("better": "lower", "values": [{"chunk_size": 4, "value": -1}])"),
       "tasks[0].values[0].value must be a number from 0 to 1e9"},
      {CardWithTask(R"("better": "lower", "values": [{"chunk_size": 4, "value": 1},)"
                    R"({"chunk_size": 4, "value": 2}])"),
       "tasks[0].values[1].chunk_size gives 4 twice"},
      {CardWithTask(good + R"(, "dense_twin": "good")"), "tasks[0].dense_twin must be a number"},
      {R"({"tasks": [{"name": "a", "measure": "b", )" + good +
           R"(}, {"name": "a", "measure": "b", )" + good + "}]}",
       "tasks[1].name gives a twice"},
      {R"({"dense_twin": {"dim": 1, "n_layer": 1, "n_local_heads": 1, "head_dim": 1,
           "heldout_bits_per_byte": "x"}})",
       "dense_twin.heldout_bits_per_byte must be"},
  };
  for (const auto& [json, says] : cases) {
    SCOPED_TRACE(json);
    const auto card = ParseModelCard(json, "dir/card.json");
    ASSERT_FALSE(card.ok());
    EXPECT_THAT(Message(card.status()), AllOf(HasSubstr("dir/card.json"), HasSubstr(says)));
  }
  EXPECT_TRUE(ParseModelCard(CardWithTask(good), "card.json").ok());
}

TEST(ModelCard, AHostileCardIsAnErrorThatNamesFileAndField) {
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  const struct {
    std::string json;
    const char* says;
  } cases[] = {
      {"", "no valid JSON at byte 1"},
      {"[]", "JSON object"},
      {"{\"a\": ", "no valid JSON at byte 7"},
      {"{\"name\": \"a\",}", "no valid JSON at byte 14"},
      {"{\"x\": " + deep + "}", "nested"},
      {deep, "nested"},
      {"{\"name\": 5}", "name must be a string"},
      {"{\"name\": \"a\\nb\"}", "control character"},
      {"{\"name\": \"\\u009b31mred\"}", "control character"},
      {"{\"name\": \"" + std::string(200, 'x') + "\"}", "longer than 128"},
      {"{\"dense_twin\": 3}", "dense_twin must be an object"},
      {"{\"dense_twin\": {\"dim\": 1e300}}", "dense_twin.dim must be"},
      {"{\"dense_twin\": {\"dim\": -1}}", "dense_twin.dim must be"},
      {"{\"dense_twin\": {\"dim\": 99999999999999999999}}", "dense_twin.dim must be"},
      {"{\"quality\": {}}", "quality must be a list"},
      {"{\"quality\": [7]}", "quality[0]"},
      {"{\"quality\": [{\"chunk_size\": 4, \"heldout_bits_per_byte\": \"low\"}]}",
       "quality[0].heldout_bits_per_byte"},
      {"{\"quality\": [{\"chunk_size\": 4, \"heldout_bits_per_byte\": -1}]}", "from 0 to 1e9"},
      {"{\"quality\": [{\"chunk_size\": 4, \"heldout_bits_per_byte\": 1},"
       "{\"chunk_size\": 4, \"heldout_bits_per_byte\": 1}]}",
       "twice"},
  };
  for (const auto& bad : cases) {
    SCOPED_TRACE(bad.says);
    const auto card = ParseModelCard(bad.json, "dir/card.json");
    ASSERT_FALSE(card.ok());
    EXPECT_THAT(Message(card.status()), AllOf(HasSubstr("dir/card.json"), HasSubstr(bad.says)));
  }
}

TEST(ModelCard, NoTwinIsSoLargeThatItsBytesOverflow) {
  const auto twin = [](int64_t dim, int64_t layers, int64_t heads, int64_t head_dim) {
    return absl::StrCat(R"({"dense_twin": {"dim": )", dim, R"(, "n_layer": )", layers,
                        R"(, "n_local_heads": )", heads, R"(, "head_dim": )", head_dim, "}}");
  };
  EXPECT_THAT(Message(ParseModelCard(twin(1 << 20, 1, 1, 1), "f").status()), HasSubstr("65536"));
  EXPECT_THAT(Message(ParseModelCard(twin(64, 1025, 1, 1), "f").status()), HasSubstr("1024"));
  EXPECT_THAT(Message(ParseModelCard(twin(64, 1, 1025, 1), "f").status()), HasSubstr("1024"));
  EXPECT_THAT(Message(ParseModelCard(twin(512, 1, 1, 512), "f").status()), HasSubstr("256"));
  EXPECT_THAT(Message(ParseModelCard(twin(64, 1, 1, 128), "f").status()),
              HasSubstr("dense_twin.head_dim must divide dim (64)"));
  ServedModel model;
  model.description.kv_dtype = "F32";
  model.description.decoder = {2, 1, 1, 1, 2, 1 << 18};
  model.description.geometry = Cat();
  model.card = *ParseModelCard(twin(1 << 16, 1024, 1024, 256), "f");
  EXPECT_EQ(DenseTwinBytesPerEntry(model), int64_t{1} << 31);
  EXPECT_EQ(DenseTwinBytes(model, 1 << 17), int64_t{1} << 48);
  EXPECT_GT(DenseDecodeOperations(model), 0);
}

TEST(ModelCard, AMinusBeforeAZeroIsNotShown) {
  const auto card = ParseModelCard(
      CardWithTask(R"("better": "lower", "values": [{"chunk_size": 4, "value": -0.0}])"), "f");
  ASSERT_TRUE(card.ok());
  EXPECT_FALSE(std::signbit(card->tasks[0].values.at(4)));
}

TEST(ModelCard, AnAbsentFileIsAnEmptyCardAHugeOneAnError) {
  const TempDirectory directory;
  EXPECT_TRUE(LoadModelCard(directory.path()).ok());
  std::filesystem::create_symlink("nothing", directory.File("card.json"));
  EXPECT_THAT(Message(LoadModelCard(directory.path()).status()), HasSubstr("is no regular file"));
  std::filesystem::remove(directory.File("card.json"));
  directory.Write("card.json", std::string(kCardBytesMax + 1, ' '));
  EXPECT_THAT(Message(LoadModelCard(directory.path()).status()), HasSubstr("1 MiB"));
}

TEST(Log, APipeThatNobodyReadsStopsNobody) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const int kept = dup(STDERR_FILENO);
  dup2(ends[1], STDERR_FILENO);
  for (int i = 0; i < 5000; ++i) LogInfo("nobody_reads", {{"line", i}});  // more than it holds
  dup2(kept, STDERR_FILENO);
  close(kept);
  close(ends[1]);
  char first[32] = {};
  EXPECT_EQ(read(ends[0], first, 5), 5);
  EXPECT_STREQ(first, "time=");
  close(ends[0]);
}

TEST(Log, ValuesCannotForgeLines) {
  EXPECT_EQ(FormatLogLine("info", "start", {{"port", 8500}, {"name", "tiny"}}),
            "level=info event=start port=8500 name=tiny");
  EXPECT_EQ(FormatLogLine("info", "e", {{"v", "a b\"\nlevel=error"}}),
            "level=info event=e v=\"a b\\\"\\nlevel=error\"");
  EXPECT_EQ(FormatLogLine("info", "e", {{"v", ""}}), "level=info event=e v=\"\"");
}

TEST(Dial, CoarserCostsLessMemoryAndADenseModelIsItsOwnMeasure) {
  ServedModel model;
  model.description.geometry = Cat();
  model.description.geometry.block_size = 4096;
  model.description.decoder = {64, 4, 4, 4, 16, 256};
  model.description.compressor = {32, 2, 2, 2, 16, 128};
  EXPECT_EQ(KvBytesPer1000Tokens(Cat(), 4), 16000);
  EXPECT_EQ(KvBytesPer1000Tokens(Cat(), 16), 4000);
  EXPECT_GT(DecodeOperations(model.description, 4), DecodeOperations(model.description, 16));
  ServedModel dense;
  dense.description = model.description;
  dense.description.geometry.kind = ModelKind::kDense;
  dense.description.geometry.chunk_sizes = {};
  EXPECT_EQ(DecodeOperations(dense.description, 0), DenseDecodeOperations(dense));
  // By hand: 4 layers of 64 x (64 x 4) + 3 x 64 x 256 weights, 2,048 entries, 100 outputs.
  const double by_hand = 4.0 * (2 * (64 * 256 + 3 * 64 * 256) + 4 * 2048 * 64) + 2 * 64 * 100;
  EXPECT_EQ(DenseDecodeOperations(model), by_hand);
}

TEST(PortFile, HoldsTheNumberOrSaysWhyNot) {
  const TempDirectory directory;
  ASSERT_TRUE(WritePortFile(directory.File("port"), 12345).ok());
  EXPECT_EQ(ReadAll(directory.File("port")), "12345\n");
  EXPECT_THAT(Message(WritePortFile(directory.File("no/port"), 1)), HasSubstr("--port_file"));
}

}  // namespace
}  // namespace catserve::testing

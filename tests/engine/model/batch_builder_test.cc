// Plans to arrays, without a device.
#include <algorithm>
#include <tuple>
#include <vector>

#include "engine/model/batch_builder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace catserve::testing {
namespace {

using ::testing::ElementsAre;

ModelConfig Config(ModelKind kind) {
  ModelConfig config{.kind = kind, .block_size = 64};
  if (kind != ModelKind::kDense) config.chunk_size_max = 8;
  if (kind == ModelKind::kCat) config.chunk_sizes = {2, 4, 8};
  return config;
}

constexpr HistoryShape kHistory{.slots = 4, .positions = 65};

// What a gathered row is, for matchers.
std::tuple<int, int, bool> Parts(const GatherRow& row) {
  return {row.table, row.index, row.via_history};
}
std::vector<std::tuple<int, int, bool>> Parts(const std::vector<GatherRow>& rows) {
  std::vector<std::tuple<int, int, bool>> parts;
  for (const GatherRow& row : rows) parts.push_back(Parts(row));
  return parts;
}

TEST(OrderByChunkSize, PutsEqualSizesTogetherAndRemembersWhereEachWent) {
  const std::vector<Compression> chunks = {{0, 0, 8}, {1, 5, 2}, {0, 1, 8}, {2, 3, 4}, {1, 6, 2}};
  const ModelConfig config = Config(ModelKind::kCat);
  EXPECT_EQ(FxAreas(config), 3);
  const CompressionOrder order = OrderByChunkSize(config, chunks, 100);
  EXPECT_THAT(order.fx_rows, ElementsAre(200, 0, 201, 100, 1));
  EXPECT_THAT(order.rows, ElementsAre(0, 1, 100, 200, 201));
  for (size_t i = 0; i < chunks.size(); ++i) {
    const auto at = std::find(order.rows.begin(), order.rows.end(), order.fx_rows[i]);
    const Compression& moved = order.chunks[at - order.rows.begin()];
    EXPECT_EQ(moved.chunk_index, chunks[i].chunk_index);
    EXPECT_EQ(moved.chunk_size, chunks[i].chunk_size);
  }
}

TEST(OrderFrom, PutsThemInRowsOneAfterTheOther) {
  const std::vector<Compression> chunks = {{0, 0, 8}, {1, 5, 2}, {0, 1, 8}, {2, 3, 4}};
  const CompressionOrder order = OrderFrom(chunks, 50);
  EXPECT_THAT(order.fx_rows, ElementsAre(52, 50, 53, 51));
  EXPECT_THAT(order.rows, ElementsAre(50, 51, 52, 53));
  EXPECT_EQ(order.chunks[1].chunk_size, 4);
}

TEST(PadCompressorBatch, AddsRowsThatSeeNobody) {
  CompressorBatch batch{
      .inputs = {{0, 7, true}, {0, 8, true}}, .positions = {0, 1}, .blocks = {{0, 2}}};
  PadCompressorBatch(4, &batch);
  EXPECT_EQ(batch.inputs.size(), 4);
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 0, 0));
  ASSERT_EQ(batch.blocks.size(), 3);
  for (int i = 1; i < 3; ++i) {
    EXPECT_EQ(batch.blocks[i].first, 1 + i);
    EXPECT_EQ(batch.blocks[i].count, 1);
  }
}

TEST(ChunksThatFit, CountsTheRowsInFrontOfTheTokens) {
  const std::vector<Compression> chunks = {{0, 0, 4}, {0, 1, 4}, {0, 2, 4}};
  EXPECT_EQ(ChunksThatFit(Config(ModelKind::kCat), chunks, 6), 1);
  EXPECT_EQ(ChunksThatFit(Config(ModelKind::kCat), chunks, 17), 2);
  EXPECT_EQ(ChunksThatFit(Config(ModelKind::kCat), chunks, 18), 3);
  EXPECT_EQ(ChunksThatFit(Config(ModelKind::kCatFixed), chunks, 15), 3);
  EXPECT_DEATH(ChunksThatFit(Config(ModelKind::kCat), chunks, 5), "does not fit into 5 rows");
}

TEST(BuildCompressorBatch, LaysChunksOutAsTheEquationsDo) {
  const std::vector<Compression> chunks = {{.slot = 1, .chunk_index = 3, .chunk_size = 2},
                                           {.slot = 0, .chunk_index = 1, .chunk_size = 4}};
  CompressorBatch batch;
  BuildCompressorBatch(Config(ModelKind::kCat), kHistory, chunks, &batch);
  EXPECT_THAT(
      Parts(batch.inputs),
      ElementsAre(std::tuple(kChunkLevelTable, 1, false), std::tuple(kChunkPositionTable, 3, false),
                  std::tuple(kChunkTokenTable, 65 + 6, true),
                  std::tuple(kChunkTokenTable, 65 + 7, true),
                  std::tuple(kChunkLevelTable, 2, false), std::tuple(kChunkPositionTable, 1, false),
                  std::tuple(kChunkTokenTable, 4, true), std::tuple(kChunkTokenTable, 5, true),
                  std::tuple(kChunkTokenTable, 6, true), std::tuple(kChunkTokenTable, 7, true)));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 2, 3, 0, 1, 2, 3, 4, 5));
  ASSERT_EQ(batch.blocks.size(), 2);
  EXPECT_EQ(batch.blocks[1].first, 4);
  EXPECT_EQ(batch.blocks[1].count, 6);
  std::vector<int> features;
  for (const GatherRow& row : batch.features) features.push_back(row.index);
  EXPECT_THAT(features, ElementsAre(2, 3, 6, 7, 8, 9));
  ASSERT_EQ(batch.groups.size(), 2);
  EXPECT_EQ(batch.groups[1].chunk_size, 4);
  EXPECT_EQ(batch.groups[1].chunks, 1);
}

TEST(BuildCompressorBatch, HasNoLevelRowForAFixedChunkSize) {
  const std::vector<Compression> chunks = {{.slot = 2, .chunk_index = 0, .chunk_size = 8}};
  CompressorBatch batch;
  BuildCompressorBatch(Config(ModelKind::kCatFixed), kHistory, chunks, &batch);
  EXPECT_EQ(batch.inputs.size(), 9);
  EXPECT_EQ(Parts(batch.inputs[0]), std::tuple(kChunkPositionTable, 0, false));
  EXPECT_EQ(batch.features.front().index, 1);
  // A second use forgets the first.
  BuildCompressorBatch(Config(ModelKind::kCatFixed), kHistory, chunks, &batch);
  EXPECT_EQ(batch.inputs.size(), 9);
  EXPECT_EQ(batch.groups.size(), 1);
}

// Slot 2 closes its chunk 4 of size 4; a branch of slot 1 reads three summaries as its prefix.
StepPlan ClosingAndBranch() {
  StepPlan plan;
  plan.page_ids = {30, 31, 40, 50};
  plan.compressions = {{.slot = 2, .chunk_index = 14, .chunk_size = 4}};
  plan.rows = {{RowKind::kSummary, 0, 0},
               {RowKind::kSeparator, 1, 0},
               {RowKind::kSeparator, 1, 0},
               {RowKind::kToken, 2, 9},
               {RowKind::kFirst, 0, 0}};
  plan.runs = {{.slot = 2,
                .chunk_size = 4,
                .pages = {0, 2},
                .first_entry = 15,
                .first_row = 0,
                .row_count = 2},
               {.slot = 1,
                .chunk_size = 8,
                .prefix = {2, 1},
                .prefix_entries = 3,
                .pages = {3, 1},
                .first_entry = 0,
                .first_row = 2,
                .row_count = 2},
               {.slot = 0,
                .chunk_size = 8,
                .pages = {2, 1},
                .first_entry = 4,
                .first_row = 4,
                .row_count = 1}};
  return plan;
}

TEST(BuildDecoderBatch, LowersRunsToEntriesAndWhatTheySee) {
  const std::vector<int32_t> fx_rows = {6};
  DecoderBatch batch;
  BuildDecoderBatch(Config(ModelKind::kCat), kHistory, ClosingAndBranch(), fx_rows, &batch);
  EXPECT_THAT(
      Parts(batch.inputs),
      ElementsAre(std::tuple(kFxTable, 6, false), std::tuple(kSeparatorTable, 0, false),
                  std::tuple(kSeparatorTable, 0, false), std::tuple(kTokenTable, 65 + 9, true),
                  std::tuple(kFirstTable, 3, false)));
  EXPECT_THAT(batch.positions, ElementsAre(0, 1, 1, 2, 0));
  EXPECT_THAT(batch.entries, ElementsAre(30 * 16 + 15, 31 * 16, 50 * 16, 50 * 16 + 1, 40 * 16 + 4));
  std::vector<std::tuple<int, int, int, int>> attention;
  for (const AttentionRow& row : batch.attention) {
    attention.emplace_back(row.prefix_page, row.prefix_entries, row.page, row.entries);
  }
  EXPECT_THAT(attention,
              ElementsAre(std::tuple(0, 0, 0, 16), std::tuple(0, 0, 0, 17), std::tuple(2, 3, 3, 1),
                          std::tuple(2, 3, 3, 2), std::tuple(0, 0, 2, 5)));
}

TEST(PadDecoderBatch, AddsRowsThatSeeAndWriteNothing) {
  DecoderBatch batch{.inputs = {{kSeparatorTable, 0, false}},
                     .positions = {5},
                     .entries = {70},
                     .attention = {{.page = 1, .entries = 9}}};
  PadDecoderBatch(3, &batch);
  EXPECT_THAT(Parts(batch.inputs),
              ElementsAre(std::tuple(kSeparatorTable, 0, false), std::tuple(kTokenTable, 0, false),
                          std::tuple(kTokenTable, 0, false)));
  EXPECT_THAT(batch.positions, ElementsAre(5, 0, 0));
  EXPECT_THAT(batch.entries, ElementsAre(70, -1, -1));
  EXPECT_EQ(batch.attention[0].entries, 9);
  EXPECT_EQ(batch.attention[2].entries + batch.attention[2].prefix_entries, 0);
}

TEST(Decodes, IsFalseOnceSomebodyReadsAPrompt) {
  StepPlan plan{.runs = {{.row_count = 1}, {.first_row = 1, .row_count = 2}}};
  EXPECT_TRUE(Decodes(plan));
  plan.runs.push_back({.first_row = 3, .row_count = 3});
  EXPECT_FALSE(Decodes(plan));
}

TEST(BuildDecoderBatchDeath, RefusesPlansThatBreakTheContract) {
  const std::vector<int32_t> fx_rows = {6};
  const ModelConfig config = Config(ModelKind::kCat);
  DecoderBatch batch;
  const auto build = [&](const StepPlan& plan) {
    BuildDecoderBatch(config, kHistory, plan, fx_rows, &batch);
  };
  StepPlan plan = ClosingAndBranch();
  plan.rows.push_back({RowKind::kToken, 2, 0});
  EXPECT_DEATH(build(plan), "1 rows belong to no run");
  plan = ClosingAndBranch();
  plan.runs[0].row_count = 3;
  EXPECT_DEATH(build(plan), "runs must cover the plan's rows in order");
  plan = ClosingAndBranch();
  plan.runs[0].first_entry = 31;
  EXPECT_DEATH(build(plan), "33 entries in 2 pages");
  plan = ClosingAndBranch();
  plan.runs[1].prefix_entries = 17;
  EXPECT_DEATH(build(plan), "17 entries in 1 pages");
  plan = ClosingAndBranch();
  plan.runs[1].pages.first = 4;
  EXPECT_DEATH(build(plan), "page list");
  plan = ClosingAndBranch();
  plan.rows[0].index = 1;
  EXPECT_DEATH(build(plan), "compression 1 of 1");
  plan = ClosingAndBranch();
  plan.rows[3].index = 65;
  EXPECT_DEATH(build(plan), "token 65 of slot 1 lies outside the history");
  plan = ClosingAndBranch();
  plan.rows[3].position = 10;
  EXPECT_DEATH(build(plan), "rotary position 10 of 10");
  EXPECT_DEATH(BuildDecoderBatch(Config(ModelKind::kCatFixed), kHistory, ClosingAndBranch(),
                                 fx_rows, &batch),
               "only `cat` models have a separator");
}

}  // namespace
}  // namespace catserve::testing

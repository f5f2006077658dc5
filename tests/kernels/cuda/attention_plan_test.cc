// The work lists of paged attention: whatever the batch, every row sees each of its entries once.
#include "kernels/cuda/attention_plan.h"

#include <algorithm>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace catserve::cuda {
namespace {

constexpr AttentionLayer kPublished{
    .heads = 32, .kv_heads = 32, .head_dim = 64, .tensor_cores = true};
constexpr AttentionLayer kGrouped{
    .heads = 12, .kv_heads = 4, .head_dim = 128, .tensor_cores = true};
constexpr AttentionLayer kFull{.heads = 16, .kv_heads = 4, .head_dim = 80};

// Every entry that every row reads, as one number each, in ascending order.
using Reads = std::vector<uint64_t>;

void Read(Reads& reads, int row, int first_page, int entries) {
  for (int e = 0; e < entries; ++e) {
    reads.push_back((uint64_t(row) << 32 | uint64_t(first_page)) * kPageEntries + uint64_t(e));
  }
}

Reads ReadsOf(const AttentionPlan& plan) {
  Reads reads;
  for (const DecodeItem& item : plan.decode) {
    Read(reads, item.row, item.first_page, item.entries);
  }
  for (const PieceItem& piece : plan.pieces) {
    for (int i = 0; i < piece.rows; ++i) {
      Read(reads, piece.first_row + i, piece.prefix_page, piece.prefix_entries);
      Read(reads, piece.first_row + i, piece.first_page, piece.entries + i);
    }
  }
  std::sort(reads.begin(), reads.end());
  return reads;
}

Reads ReadsOf(const std::vector<AttentionRow>& rows) {
  Reads reads;
  for (size_t i = 0; i < rows.size(); ++i) {
    Read(reads, static_cast<int>(i), rows[i].prefix_page, rows[i].prefix_entries);
    Read(reads, static_cast<int>(i), rows[i].page, rows[i].entries);
  }
  std::sort(reads.begin(), reads.end());
  return reads;
}

// Every result has one writer: an item or a piece for itself, or the combine of all its slots.
void ExpectOneWriterForEveryRow(const AttentionPlan& plan, int rows) {
  std::vector<int> writers(rows, 0);
  std::vector<int> slot_rows(plan.slots, -1);
  for (const DecodeItem& item : plan.decode) {
    if (item.partial < 0) {
      ++writers[item.row];
    } else {
      ASSERT_EQ(slot_rows.at(item.partial), -1);
      ASSERT_GT(item.entries, 0) << "a partial result of nothing has no maximum";
      slot_rows[item.partial] = item.row;
    }
  }
  for (const PieceItem& piece : plan.pieces) {
    for (int i = 0; i < piece.rows; ++i) ++writers[piece.first_row + i];
  }
  int slots = 0;
  for (const CombineItem& combine : plan.combines) {
    ++writers[combine.row];
    ASSERT_GT(combine.slots, 1);
    slots += combine.slots;
    for (int s = 0; s < combine.slots; ++s) {
      ASSERT_EQ(slot_rows.at(combine.first_slot + s), combine.row);
    }
  }
  EXPECT_EQ(slots, plan.slots);
  EXPECT_EQ(writers, std::vector<int>(rows, 1));
}

// Lists of pages that do not overlap, prefixes, runs of rows, rows that see nothing.
std::vector<AttentionRow> RandomRows(std::mt19937& random, int rows_max, int entries_max) {
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
  std::vector<AttentionRow> rows;
  int page = 0;
  const auto take = [&](int entries) {
    const int first = page;
    page += entries / kPageEntries + 1;
    return first;
  };
  while (static_cast<int>(rows.size()) < rows_max) {
    const int run = std::min(rows_max - static_cast<int>(rows.size()), 1 + below(4) * below(40));
    const int entries = below(3) == 0 ? below(40) : below(entries_max);
    AttentionRow row{.entries = entries};
    if (below(4) == 0) row.prefix_entries = below(entries_max);
    row.prefix_page = take(row.prefix_entries);
    row.page = take(entries + run);
    for (int i = 0; i < run; ++i, ++row.entries) rows.push_back(row);
  }
  return rows;
}

TEST(AttentionPlan, EveryRowSeesEachOfItsEntriesOnceInAnyBatch) {
  std::mt19937 random(11);
  for (int round = 0; round < 150; ++round) {
    const Device device{.multiprocessors = 1 << random() % 9};
    const int rows_max = 1 + static_cast<int>(random() % (round % 25 == 0 ? 100 : 12));
    const auto rows = RandomRows(random, rows_max, round % 50 == 0 ? 9000 : 700);
    for (const AttentionLayer& layer : {kPublished, kGrouped, kFull}) {
      const int bucket = static_cast<int>(rows.size()) + static_cast<int>(random() % 8);
      const AttentionPlan plan = PlanAttention(rows, bucket, layer, device);
      ASSERT_EQ(ReadsOf(plan), ReadsOf(rows)) << round;
      ExpectOneWriterForEveryRow(plan, static_cast<int>(rows.size()));
      const auto longer = [](const auto& a, const auto& b) { return a.entries > b.entries; };
      ASSERT_TRUE(std::is_sorted(plan.decode.begin(), plan.decode.end(), longer)) << round;
      for (const PieceItem& piece : plan.pieces) {
        ASSERT_LE(piece.rows * layer.heads / layer.kv_heads, kPieceQueries);
        ASSERT_GT(piece.visible(), 0);
      }
    }
  }
}

TEST(AttentionPlan, DecodingOverSummariesIsNeverSplit) {
  // C = 16 at 4,096 tokens: 274 entries; the published shape, batches 1 to 320.
  for (const int batch : {1, 8, 32, 128, 320}) {
    std::vector<AttentionRow> rows;
    for (int i = 0; i < batch; ++i) rows.push_back({.page = i * 18, .entries = 274});
    const AttentionPlan plan = PlanAttention(rows, batch, kPublished, {});
    EXPECT_EQ(plan.slots, 0) << batch;
    EXPECT_EQ(plan.split_warps, batch <= 32 ? 8 : 1) << batch;
  }
}

TEST(AttentionPlan, AFewLongRowsAreSplitUntilTheyFillHalfTheDevice) {
  const std::vector<AttentionRow> one = {{.entries = 4096}};
  const AttentionLayer dense{.heads = 16, .kv_heads = 16, .head_dim = 64, .tensor_cores = true};
  const AttentionPlan plan = PlanAttention(one, 1, dense, {});
  EXPECT_EQ(plan.slots, 16);  // 256 entries each, as short as is worth it
  EXPECT_EQ(plan.decode.size(), 16);
  const std::vector<AttentionRow> many(64, one[0]);
  EXPECT_LE(PlanAttention(many, 64, dense, {}).slots, 2 * 64);
}

TEST(AttentionPlan, PromptsGoToTheTensorCoresAndClosedChunksDoNot) {
  std::vector<AttentionRow> rows;
  for (int i = 0; i < 100; ++i) rows.push_back({.page = 0, .entries = 5 + i});
  rows.push_back({.page = 9, .entries = 40});  // a summary and its separator
  rows.push_back({.page = 9, .entries = 41});
  const AttentionPlan plan = PlanAttention(rows, 102, kPublished, {});
  ASSERT_EQ(plan.pieces.size(), 2);
  EXPECT_EQ(plan.pieces[0].first_row, 64);
  EXPECT_EQ(plan.pieces[0].visible(), 69);
  EXPECT_EQ(plan.decode.size(), 2);
  EXPECT_TRUE(PlanAttention(rows, 102, kFull, {}).pieces.empty());
}

TEST(AttentionPlan, ARowThatSeesNothingIsStillWritten) {
  const std::vector<AttentionRow> rows = {{.entries = 0}};
  const AttentionPlan plan = PlanAttention(rows, 1, kPublished, {});
  ASSERT_EQ(plan.decode.size(), 1);
  EXPECT_EQ(plan.decode[0].entries, 0);
  EXPECT_EQ(plan.decode[0].partial, -1);
}

TEST(KvSlab, EntriesOfFarPagesNeedMoreThan32Bits) {
  const KvSlab kv{.kv_heads = 32, .head_dim = 64};
  const int64_t far = EntryIndex(kv, 70'000, 31, kValue, 15) * kv.head_dim;
  EXPECT_EQ(far, 70'000LL * 32 * 2 * 16 * 64 + (31 * 2 + 1) * 16 * 64 + 15 * 64);
  EXPECT_GT(far, int64_t{1} << 32);
  // Neighbours in the pool are a page apart: no two entries share a place.
  EXPECT_EQ(EntryIndex(kv, 70'001, 0, kKey, 0), EntryIndex(kv, 70'000, 31, kValue, 15) + 1);
  EXPECT_EQ(EntryIndex(kv, 3, 4, kValue, 0), EntryIndex(kv, 3, 4, kKey, 15) + 1);
}

}  // namespace
}  // namespace catserve::cuda

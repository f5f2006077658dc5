#include "kernels/cuda/attention_plan.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/cuda/launch_shape.h"

namespace catserve::cuda {
namespace {

// A range of this many entries is never worth a partial result, by split_warps.
constexpr int64_t kWholeMaxOneWarp = 256;
constexpr int64_t kWholeMaxEightWarps = 512;
// Bounds the tail of a launch: one warp takes no more of a row.
constexpr int64_t kRangeMax = 2048;
// Query rows times heads of a group from which the tensor cores' 16-row tile is worth it.
constexpr int kPieceQueriesMin = 8;

struct Range {
  int32_t row = 0;
  int32_t first_page = 0;
  int64_t entries = 0;
};

int HeadsPerGroup(const AttentionLayer& layer) { return layer.heads / layer.kv_heads; }

// The kernel for pieces exists for these.
bool HasPieces(const AttentionLayer& layer) {
  return layer.tensor_cores && (layer.head_dim == 64 || layer.head_dim == 128) &&
         HeadsPerGroup(layer) <= kPieceQueries;
}

bool Continues(const AttentionRow& before, const AttentionRow& row) {
  return row.prefix_entries == before.prefix_entries &&
         (row.prefix_entries == 0 || row.prefix_page == before.prefix_page) &&
         row.page == before.page && row.entries == before.entries + 1;
}

// How many rows from `first` on form a run that a piece can be cut from; 0: none.
int RunLength(std::span<const AttentionRow> rows, size_t first) {
  if (rows[first].prefix_entries + rows[first].entries <= 0) return 0;
  size_t end = first + 1;
  while (end < rows.size() && Continues(rows[end - 1], rows[end])) ++end;
  return static_cast<int>(end - first);
}

void AddPieces(std::vector<PieceItem>& pieces, const AttentionRow& row, PieceItem run, int group) {
  const int rows_max = kPieceQueries / group;
  for (int done = 0; done < run.rows; done += rows_max) {
    pieces.push_back({.first_row = run.first_row + done,
                      .rows = std::min(rows_max, run.rows - done),
                      .prefix_page = row.prefix_page,
                      .prefix_entries = row.prefix_entries,
                      .first_page = row.page,
                      .entries = row.entries + done});
  }
}

void AddRanges(std::vector<Range>& ranges, const AttentionRow& row, int32_t index) {
  if (row.prefix_entries > 0) ranges.push_back({index, row.prefix_page, row.prefix_entries});
  if (row.entries > 0 || row.prefix_entries == 0) ranges.push_back({index, row.page, row.entries});
}

int64_t WholeMax(int split_warps) {
  return split_warps == 1 ? kWholeMaxOneWarp : kWholeMaxEightWarps;
}

// Pieces of at most `split` entries, a multiple of a page, that a range is cut into.
int64_t Cuts(int64_t entries, int64_t split, int64_t whole_max) {
  return entries <= whole_max ? 1 : DivideUp(entries, split);
}

// Items that fill half of what the device holds at once.
int64_t HalfWave(const AttentionLayer& layer, int split_warps, const Device& device) {
  const int64_t per_block = split_warps == 1 ? 4 : 1;
  const int64_t blocks = DivideUp(layer.heads / HeadsPerWarp(layer), per_block);
  const int64_t held = int64_t{device.multiprocessors} *
                       (split_warps == 1 ? device.whole_blocks : device.split_blocks);
  return held / (2 * blocks);
}

// The shortest split, in whole pages, that makes no more items than half a wave; at most kRangeMax.
int64_t ChooseSplit(std::span<const Range> ranges, int64_t items_max, int64_t whole_max) {
  int64_t low = whole_max / 2 / kPageEntries;
  int64_t high = kRangeMax / kPageEntries;
  const auto items = [&](int64_t split) {
    int64_t n = 0;
    for (const Range& range : ranges) n += Cuts(range.entries, split, whole_max);
    return n;
  };
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (items(middle * kPageEntries) > items_max) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low * kPageEntries;
}

// Cuts the ranges of one row into items; more than one item needs slots and a combine.
void AddItems(AttentionPlan& plan, std::span<const Range> ranges, int64_t split) {
  const int64_t whole_max = WholeMax(plan.split_warps);
  int64_t items = 0;
  for (const Range& range : ranges) items += Cuts(range.entries, split, whole_max);
  const int first_slot = plan.slots;
  for (const Range& range : ranges) {
    // Equal shares, in whole pages.
    const int64_t cuts = Cuts(range.entries, split, whole_max);
    const int64_t share =
        std::max<int64_t>(1, DivideUp(DivideUp(range.entries, cuts), kPageEntries)) * kPageEntries;
    int64_t done = 0;
    do {
      plan.decode.push_back(
          {.row = range.row,
           .first_page = range.first_page + static_cast<int32_t>(done / kPageEntries),
           .entries = static_cast<int32_t>(std::min(share, range.entries - done)),
           .partial = items > 1 ? plan.slots++ : -1});
      done += share;
    } while (done < range.entries);
  }
  if (items > 1) {
    plan.combines.push_back(
        {.row = ranges.front().row, .first_slot = first_slot, .slots = plan.slots - first_slot});
  }
}

}  // namespace

int HeadsPerWarp(const AttentionLayer& layer) {
  const int group = HeadsPerGroup(layer);
  if (!layer.tuned) return 1;
  return group % 4 == 0 ? 4 : group % 2 == 0 ? 2 : 1;
}

int SplitWarps(int row_bucket, const AttentionLayer& layer, const Device& device) {
  const int64_t pairs = int64_t{row_bucket} * (layer.heads / HeadsPerWarp(layer));
  return pairs <= 8 * int64_t{device.multiprocessors} ? 8 : 1;
}

AttentionPlan PlanAttention(std::span<const AttentionRow> rows, int row_bucket,
                            const AttentionLayer& layer, const Device& device) {
  CATSERVE_CHECK(static_cast<int64_t>(rows.size()) <= row_bucket)
      << rows.size() << " rows in a bucket of " << row_bucket;
  AttentionPlan plan{.group = HeadsPerWarp(layer),
                     .split_warps = SplitWarps(row_bucket, layer, device)};
  const int group = HeadsPerGroup(layer);
  std::vector<Range> ranges;
  for (size_t i = 0; i < rows.size();) {
    const int run = HasPieces(layer) ? RunLength(rows, i) : 0;
    const auto row = static_cast<int32_t>(i);
    if (run * group >= kPieceQueriesMin) {
      AddPieces(plan.pieces, rows[i], {.first_row = row, .rows = run}, group);
      i += run;
    } else {
      AddRanges(ranges, rows[i], row);
      ++i;
    }
  }
  const int64_t items_max = std::max<int64_t>(static_cast<int64_t>(ranges.size()),
                                              HalfWave(layer, plan.split_warps, device));
  const int64_t split = ChooseSplit(ranges, items_max, WholeMax(plan.split_warps));
  for (size_t i = 0; i < ranges.size();) {
    size_t end = i + 1;
    while (end < ranges.size() && ranges[end].row == ranges[i].row) ++end;
    AddItems(plan, std::span(ranges).subspan(i, end - i), split);
    i = end;
  }
  std::stable_sort(plan.decode.begin(), plan.decode.end(),
                   [](const auto& a, const auto& b) { return a.entries > b.entries; });
  std::stable_sort(plan.pieces.begin(), plan.pieces.end(),
                   [](const auto& a, const auto& b) { return a.visible() > b.visible(); });
  return plan;
}

}  // namespace catserve::cuda

#include "kernels/cpu/attention.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/check.h"
#include "kernels/cpu/hold_int8.h"
#include "kernels/shape_checks.h"

namespace catserve::cpu {
namespace {

// One part (keys or values) of a page and head: its first entry, and that one's scale, or null.
struct PagePart {
  char* data;
  uint16_t* scales;
};

PagePart PartOf(const KvLayer& kv, int64_t page, int64_t kv_head, KvPart part) {
  const int64_t first = KvEntryIndex(kv.kv_heads, {page, kv_head, part, 0});
  return {static_cast<char*>(kv.data) + first * kv.head_dim * SizeOf(kv.dtype),
          kv.scales == nullptr ? nullptr : kv.scales + first};
}

// Writes a head's numbers to entry `entry` of the part.
void WriteHead(const Ops& ops, const KvLayer& kv, const PagePart& part, int64_t entry,
               const float* numbers) {
  char* const to = part.data + entry * kv.head_dim * SizeOf(kv.dtype);
  if (kv.dtype != DType::kI8) return ops.narrow(to, numbers, kv.dtype, kv.head_dim);
  part.scales[entry] = HoldInt8(ops, reinterpret_cast<int8_t*>(to), numbers, kv.head_dim);
}

void WriteEntry(const Ops& ops, const KvLayer& kv, int64_t slot, const float* keys) {
  CATSERVE_CHECK(slot < kv.pages * kKvPageEntries)
      << "entry " << slot << " of " << kv.pages << " pages";
  const float* values = keys + int64_t{kv.kv_heads} * kv.head_dim;
  const int64_t page = slot / kKvPageEntries;
  const int64_t entry = slot % kKvPageEntries;
  for (int64_t head = 0; head < kv.kv_heads; ++head) {
    const int64_t first = head * kv.head_dim;
    WriteHead(ops, kv, PartOf(kv, page, head, kKey), entry, keys + first);
    WriteHead(ops, kv, PartOf(kv, page, head, kValue), entry, values + first);
  }
}

// Appends the first `entries` entries of the page list that starts at page_ids[first].
void AppendRuns(std::vector<EntryRun>& runs, const PagedEntries& paged, int64_t kv_head,
                int64_t first, int64_t entries) {
  const int64_t pages = (entries + kKvPageEntries - 1) / kKvPageEntries;
  CATSERVE_CHECK(entries >= 0 && first >= 0 &&
                 first <= static_cast<int64_t>(paged.page_ids.size()) - pages)
      << entries << " entries from page " << first << " of a list of " << paged.page_ids.size();
  for (int64_t i = 0; i < pages; ++i) {
    const int64_t id = paged.page_ids[first + i];
    CATSERVE_CHECK(id >= 0 && id < paged.kv.pages) << "page " << id << " of " << paged.kv.pages;
    const PagePart keys = PartOf(paged.kv, id, kv_head, kKey);
    const PagePart values = PartOf(paged.kv, id, kv_head, kValue);
    runs.push_back({.keys = keys.data,
                    .values = values.data,
                    .count = std::min(kKvPageEntries, entries - i * kKvPageEntries),
                    .key_scales = keys.scales,
                    .value_scales = values.scales});
  }
}

// The queries of rows [rows.begin, rows.end) that read key/value head `kv_head`.
struct HeadRows {
  int64_t kv_head;
  Range rows;
};

// Computes them. visible(row): the entries of tile.runs that a row sees.
template <typename Visible>
void AttendRows(const Ops& ops, AttentionTile tile, const QueryRows& io, const HeadSpec& spec,
                const HeadRows& part, Visible visible) {
  const auto [kv_head, rows] = part;
  const int64_t group = spec.heads / spec.kv_heads;
  std::array<Query, kQueryTile> queries;
  tile.queries = queries.data();
  const auto flush = [&] {
    if (tile.query_count > 0) ops.attend(tile);
    tile.query_count = 0;
  };
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      queries[tile.query_count++] = {.q = io.q.row<const float>(row) + head * spec.head_dim,
                                     .out = io.out.row<float>(row) + head * spec.head_dim,
                                     .visible = visible(row)};
      if (tile.query_count == kQueryTile) flush();
    }
  }
  flush();
}

// rows: how many will be computed by it.
AttentionTile TileOf(Mate& mate, const HeadSpec& spec, DType dtype, int64_t entry_stride,
                     int64_t rows) {
  AttentionTile tile{.runs = mate.runs.data(),
                     .run_count = static_cast<int64_t>(mate.runs.size()),
                     .entry_stride = entry_stride,
                     .dtype = dtype,
                     .head_dim = spec.head_dim,
                     .scale = 1.0f / std::sqrt(static_cast<float>(spec.head_dim))};
  for (const EntryRun& run : mate.runs) tile.entries += run.count;
  const int64_t queries = std::min(kQueryTile, rows * (spec.heads / spec.kv_heads));
  const auto scores = static_cast<size_t>(queries * ScoreStride(tile.entries));
  if (mate.scores.size() < scores) mate.scores.resize(scores);
  tile.scores = mate.scores.data();
  return tile;
}

bool SameLists(const AttentionRow& a, const AttentionRow& b) {
  return a.prefix_page == b.prefix_page && a.prefix_entries == b.prefix_entries && a.page == b.page;
}

// Consecutive rows that read the same pages, as many as make one tile of queries; returns the
// element operations of all of them.
int64_t TileRows(std::vector<Range>& tiles, std::span<const AttentionRow> rows,
                 const HeadSpec& spec) {
  const int64_t tile_rows = std::max<int64_t>(1, kQueryTile / (spec.heads / spec.kv_heads));
  int64_t entries = 0;
  tiles.clear();
  for (int64_t i = 0; i < static_cast<int64_t>(rows.size()); ++i) {
    entries += int64_t{rows[i].prefix_entries} + rows[i].entries;
    const bool joins = !tiles.empty() && i - tiles.back().begin < tile_rows &&
                       SameLists(rows[tiles.back().begin], rows[i]);
    if (!joins) tiles.push_back({i, i});
    tiles.back().end = i + 1;
  }
  return entries * spec.heads * spec.head_dim * 2;
}

}  // namespace

void PrepareHeads(Crew& crew, const TensorView& qkv, const HeadSpec& spec,
                  const Placement& placement) {
  CheckSpec(spec);
  const int64_t rotated = spec.heads + spec.kv_heads;  // values are neither normed nor rotated
  const int64_t width = (rotated + spec.kv_heads) * spec.head_dim;
  CheckColumns(qkv, width, "qkv");
  CheckColumns(spec.rotary, spec.head_dim, "rotary");
  CATSERVE_CHECK(qkv.rows() == static_cast<int64_t>(placement.positions.size()))
      << placement.positions.size() << " positions for " << qkv.rows() << " rows";
  if (placement.kv != nullptr) {
    CATSERVE_CHECK(placement.slots.size() == placement.positions.size())
        << placement.slots.size() << " slots for " << qkv.rows() << " rows";
  }
  crew.ForEach(qkv.rows(), 2 * width, [&](int64_t i, Mate&) {
    const int32_t position = placement.positions[i];
    CATSERVE_CHECK(position >= 0 && position < spec.rotary.rows())
        << "position " << position << " of a rotary table of " << spec.rotary.rows();
    float* row = qkv.row<float>(i);
    for (int64_t h = 0; h < rotated; ++h) {
      float* head = row + h * spec.head_dim;
      const TensorView& norm = h < spec.heads ? spec.q_norm : spec.k_norm;
      if (norm.data != nullptr) {
        crew.ops().rms_norm(head, head, norm.row<const float>(0), spec.head_dim, spec.norm_eps);
      }
      crew.ops().rotate(head, spec.rotary.row<const float>(position), spec.head_dim);
    }
    if (placement.kv != nullptr && placement.slots[i] >= 0) {
      WriteEntry(crew.ops(), *placement.kv, placement.slots[i],
                 row + int64_t{spec.heads} * spec.head_dim);
    }
  });
}

void PagedAttention(Crew& crew, const QueryRows& queries, const HeadSpec& spec,
                    const PagedEntries& entries) {
  CheckSpec(spec);
  CheckColumns(queries.q, int64_t{spec.heads} * spec.head_dim, "q");
  CheckColumns(queries.out, int64_t{spec.heads} * spec.head_dim, "out");
  CATSERVE_CHECK(queries.q.rows() == static_cast<int64_t>(entries.rows.size()) &&
                 queries.out.rows() == queries.q.rows())
      << entries.rows.size() << " descriptions for " << queries.q.rows() << " rows of q and "
      << queries.out.rows() << " of out";
  const int64_t work = TileRows(crew.tiles(), entries.rows, spec);
  const int64_t items = static_cast<int64_t>(crew.tiles().size()) * spec.kv_heads;
  crew.ForEach(items, items > 0 ? work / items : 0, [&](int64_t item, Mate& mate) {
    const Range rows = crew.tiles()[item / spec.kv_heads];
    const int64_t kv_head = item % spec.kv_heads;
    const AttentionRow& first = entries.rows[rows.begin];
    int64_t own = 0;
    for (int64_t i = rows.begin; i < rows.end; ++i) {
      own = std::max<int64_t>(own, entries.rows[i].entries);
    }
    mate.runs.clear();
    AppendRuns(mate.runs, entries, kv_head, first.prefix_page, first.prefix_entries);
    AppendRuns(mate.runs, entries, kv_head, first.page, own);
    const AttentionTile tile =
        TileOf(mate, spec, entries.kv.dtype, spec.head_dim, rows.end - rows.begin);
    AttendRows(crew.ops(), tile, queries, spec, {kv_head, rows}, [&](int64_t row) {
      return int64_t{first.prefix_entries} + entries.rows[row].entries;
    });
  });
}

void BlockAttention(Crew& crew, const QueryRows& queries, const HeadSpec& spec,
                    std::span<const RowBlock> blocks) {
  CheckSpec(spec);
  const int64_t key_column = int64_t{spec.heads} * spec.head_dim;
  const int64_t kv_width = int64_t{spec.kv_heads} * spec.head_dim;
  CheckColumns(queries.q, key_column + 2 * kv_width, "qkv");
  CheckColumns(queries.out, key_column, "out");
  CATSERVE_CHECK(queries.out.rows() == queries.q.rows())
      << queries.out.rows() << " rows of out for " << queries.q.rows();
  int64_t pairs = 0;
  for (const RowBlock& block : blocks) {
    CATSERVE_CHECK(block.first >= 0 && block.count >= 0 &&
                   block.first <= queries.q.rows() - block.count)
        << "block [" << block.first << ", +" << block.count << ") of " << queries.q.rows();
    pairs += int64_t{block.count} * block.count;
  }
  const int64_t items = static_cast<int64_t>(blocks.size()) * spec.kv_heads;
  const int64_t work = items > 0 ? pairs * key_column * 2 / items : 0;
  crew.ForEach(items, work, [&](int64_t item, Mate& mate) {
    const RowBlock& block = blocks[item / spec.kv_heads];
    const int64_t kv_head = item % spec.kv_heads;
    const float* keys =
        queries.q.row<const float>(block.first) + key_column + kv_head * spec.head_dim;
    mate.runs.assign(1, {.keys = keys, .values = keys + kv_width, .count = block.count});
    const AttentionTile tile = TileOf(mate, spec, DType::kF32, queries.q.row_stride, block.count);
    AttendRows(crew.ops(), tile, queries, spec,
               {kv_head, {block.first, int64_t{block.first} + block.count}},
               [&](int64_t) { return int64_t{block.count}; });
  });
}

}  // namespace catserve::cpu

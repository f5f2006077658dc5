#include "engine/model/batch_builder.h"

#include <algorithm>
#include <numeric>

#include "absl/functional/function_ref.h"
#include "engine/geometry.h"
#include "kernels/check.h"

namespace catserve {
namespace {

// Aborts unless the list lies in the plan and holds `entries` entries.
void CheckPages(const StepPlan& plan, const PageList& list, int64_t entries) {
  const int64_t all = static_cast<int64_t>(plan.page_ids.size());
  CATSERVE_CHECK(list.first >= 0 && list.count >= 0 && list.first + int64_t{list.count} <= all)
      << "page list [" << list.first << ", +" << list.count << ") of " << all << " ids";
  CATSERVE_CHECK(entries >= 0 && PagesFor(entries) <= list.count)
      << entries << " entries in " << list.count << " pages";
}

GatherRow InputOf(const ModelConfig& config, const HistoryShape& history, const RowRun& run,
                  const Row& row, std::span<const int32_t> fx_rows) {
  switch (row.kind) {
    case RowKind::kToken:
      CATSERVE_CHECK(history.Holds(run.slot, row.index, 1))
          << "token " << row.index << " of slot " << run.slot << " lies outside the history";
      return {kTokenTable, history.Index(run.slot, row.index), true};
    case RowKind::kSummary:
      CATSERVE_CHECK(row.index >= 0 && row.index < fx_rows.size())
          << "compression " << row.index << " of " << fx_rows.size();
      return {kFxTable, fx_rows[row.index], false};
    case RowKind::kFirst:
      CATSERVE_CHECK(config.compresses()) << "a dense model has no first entry";
      return {kFirstTable, config.ChunkSizeLevel(run.chunk_size), false};
    case RowKind::kSeparator:
      CATSERVE_CHECK(config.kind == ModelKind::kCat) << "only `cat` models have a separator";
      return {kSeparatorTable, 0, false};
  }
  CATSERVE_CHECK(false) << "a row of unknown kind";
  return {};
}

int64_t AreaOf(const ModelConfig& config, int32_t chunk_size) {
  const auto& sizes = config.chunk_sizes;
  const auto at = std::find(sizes.begin(), sizes.end(), chunk_size);
  CATSERVE_CHECK(at != sizes.end())
      << "chunk size " << chunk_size << " is not offered: the plan is wrong";
  return at - sizes.begin();
}

int64_t EntryOf(const StepPlan& plan, const PageList& pages, int32_t entry) {
  const PageId page = plan.page_ids[pages.first + entry / kPageEntries];
  return int64_t{page} * kPageEntries + entry % kPageEntries;
}

// Chunks of one size together, in rows from `next` on. start(chunk_size, next): where those of a
// size start.
CompressionOrder OrderBy(std::span<const Compression> compressions, int64_t next,
                         absl::FunctionRef<int64_t(int32_t chunk_size, int64_t next)> start) {
  std::vector<int32_t> order(compressions.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return compressions[a].chunk_size < compressions[b].chunk_size;
  });
  CompressionOrder result;
  result.fx_rows.resize(compressions.size());
  for (const int32_t i : order) {
    const Compression& chunk = compressions[i];
    const bool first = result.chunks.empty() || result.chunks.back().chunk_size != chunk.chunk_size;
    if (first) next = start(chunk.chunk_size, next);
    result.fx_rows[i] = static_cast<int32_t>(next++);
    result.rows.push_back(result.fx_rows[i]);
    result.chunks.push_back(chunk);
  }
  return result;
}

}  // namespace

int64_t FxAreas(const ModelConfig& config) {
  return std::max<int64_t>(1, std::ssize(config.chunk_sizes));
}

CompressionOrder OrderByChunkSize(const ModelConfig& config,
                                  std::span<const Compression> compressions, int64_t area_rows) {
  return OrderBy(compressions, 0, [&](int32_t chunk_size, int64_t /*next*/) {
    return AreaOf(config, chunk_size) * area_rows;
  });
}

CompressionOrder OrderFrom(std::span<const Compression> compressions, int64_t row) {
  return OrderBy(compressions, row, [](int32_t /*chunk_size*/, int64_t next) { return next; });
}

size_t ChunksThatFit(const ModelConfig& config, std::span<const Compression> chunks,
                     int64_t rows_max) {
  int64_t rows = 0;
  size_t count = 0;
  while (count < chunks.size()) {
    rows += chunks[count].chunk_size + config.compressor_prefix_rows();
    if (rows > rows_max) break;
    ++count;
  }
  CATSERVE_CHECK(count > 0) << "a chunk of " << chunks[0].chunk_size << " tokens does not fit into "
                            << rows_max << " rows";
  return count;
}

void BuildCompressorBatch(const ModelConfig& config, const HistoryShape& history,
                          std::span<const Compression> chunks, CompressorBatch* batch) {
  batch->inputs.clear();
  batch->positions.clear();
  batch->blocks.clear();
  batch->features.clear();
  batch->groups.clear();
  for (const Compression& chunk : chunks) {
    const int32_t size = chunk.chunk_size;
    const int32_t first_token = chunk.chunk_index * size;
    CATSERVE_CHECK(size > 0 && history.Holds(chunk.slot, first_token, size))
        << "chunk " << chunk.chunk_index << " of size " << size << " of slot " << chunk.slot
        << " lies outside the history";
    const int32_t first_row = static_cast<int32_t>(batch->inputs.size());
    if (config.kind == ModelKind::kCat) {
      batch->inputs.push_back({kChunkLevelTable, config.ChunkSizeLevel(size), false});
    }
    batch->inputs.push_back({kChunkPositionTable, chunk.chunk_index, false});
    for (int32_t i = 0; i < size; ++i) {
      batch->features.push_back({0, static_cast<int32_t>(batch->inputs.size()), false});
      batch->inputs.push_back({kChunkTokenTable, history.Index(chunk.slot, first_token + i), true});
    }
    const int32_t rows = static_cast<int32_t>(batch->inputs.size()) - first_row;
    for (int32_t i = 0; i < rows; ++i) batch->positions.push_back(i);
    batch->blocks.push_back({first_row, rows});
    if (batch->groups.empty() || batch->groups.back().chunk_size != size) {
      batch->groups.push_back({size, 0});
    }
    ++batch->groups.back().chunks;
  }
}

bool Decodes(const StepPlan& plan) {
  constexpr int32_t kRowsMax = 2;  // a summary and its separator
  return std::all_of(plan.runs.begin(), plan.runs.end(),
                     [](const RowRun& run) { return run.row_count <= kRowsMax; });
}

void PadCompressorBatch(int64_t rows, CompressorBatch* batch) {
  CATSERVE_CHECK(rows >= std::ssize(batch->inputs)) << "a batch of more rows than it is padded to";
  for (auto row = static_cast<int32_t>(batch->inputs.size()); row < rows; ++row) {
    batch->inputs.push_back({.table = kChunkPositionTable, .index = 0});
    batch->positions.push_back(0);
    batch->blocks.push_back({.first = row, .count = 1});
  }
}

void PadDecoderBatch(int64_t rows, DecoderBatch* batch) {
  const auto size = static_cast<size_t>(rows);
  CATSERVE_CHECK(size >= batch->inputs.size()) << "a batch of more rows than it is padded to";
  batch->inputs.resize(size, {.table = kTokenTable, .index = 0});
  batch->positions.resize(size, 0);
  batch->entries.resize(size, -1);
  batch->attention.resize(size, {});
}

void BuildDecoderBatch(const ModelConfig& config, const HistoryShape& history, const StepPlan& plan,
                       std::span<const int32_t> fx_rows, DecoderBatch* batch) {
  const size_t rows = plan.rows.size();
  batch->inputs.resize(rows);
  batch->positions.resize(rows);
  batch->entries.resize(rows);
  batch->attention.resize(rows);
  size_t covered = 0;
  for (const RowRun& run : plan.runs) {
    CATSERVE_CHECK(run.first_row == covered && run.row_count >= 0 &&
                   covered + run.row_count <= rows)
        << "runs must cover the plan's rows in order";
    CATSERVE_CHECK(run.first_entry >= 0) << "an entry before the first";
    CheckPages(plan, run.pages, int64_t{run.first_entry} + run.row_count);
    CheckPages(plan, run.prefix, run.prefix_entries);
    for (int32_t i = 0; i < run.row_count; ++i) {
      const Row& row = plan.rows[covered];
      CATSERVE_CHECK(row.position >= 0 && row.position < config.decoder_positions())
          << "rotary position " << row.position << " of " << config.decoder_positions();
      batch->inputs[covered] = InputOf(config, history, run, row, fx_rows);
      batch->positions[covered] = row.position;
      batch->entries[covered] = EntryOf(plan, run.pages, run.first_entry + i);
      batch->attention[covered] = {.prefix_page = run.prefix.first,
                                   .prefix_entries = run.prefix_entries,
                                   .page = run.pages.first,
                                   .entries = run.first_entry + i + 1};
      ++covered;
    }
  }
  CATSERVE_CHECK(covered == rows) << rows - covered << " rows belong to no run";
}

}  // namespace catserve

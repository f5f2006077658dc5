// Lowers a StepPlan to the arrays that the operations take. Pure: no memory but the results', no
// device. The results keep their capacity from step to step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/config.h"
#include "engine/model/token_history.h"
#include "engine/step.h"
#include "kernels/backend.h"

namespace catserve {

// Tables that decoder rows are gathered from. A dense model has the first, `cat_fixed` the first
// three.
enum DecoderTable : int32_t { kTokenTable, kFxTable, kFirstTable, kSeparatorTable };

// Tables that compressor rows are gathered from. `cat_fixed` has the first two.
enum CompressorTable : int32_t { kChunkTokenTable, kChunkPositionTable, kChunkLevelTable };

// Compressions of a step, those of one chunk size together.
struct CompressionOrder {
  std::vector<Compression> chunks;  // ascending chunk sizes, else in the plan's order
  std::vector<int32_t> rows;        // of chunks[i] in the fx buffer: of a size one after the other
  std::vector<int32_t> fx_rows;     // of compressions[i], as they were given
};
// In the fx buffer each chunk size has an area of its own, so that chunks of one go to the same
// rows whatever others there are.
CompressionOrder OrderByChunkSize(const ModelConfig& config,
                                  std::span<const Compression> compressions, int64_t area_rows);
int64_t FxAreas(const ModelConfig& config);
// The same in rows from one on, without areas.
CompressionOrder OrderFrom(std::span<const Compression> compressions, int64_t row);

// How many of the first chunks fit into `rows_max` compressor rows; at least one.
// REQUIRES: chunks not empty, the first one fits.
size_t ChunksThatFit(const ModelConfig& config, std::span<const Compression> chunks,
                     int64_t rows_max);

struct CompressorBatch {
  struct Group {  // chunks of one size
    int32_t chunk_size = 0;
    int32_t chunks = 0;
  };
  std::vector<GatherRow> inputs;    // of each row: A[p], U[k], E_f[t] ..
  std::vector<int32_t> positions;   // rotary
  std::vector<RowBlock> blocks;     // one a chunk
  std::vector<GatherRow> features;  // the rows of tokens, in order: what z is made of
  std::vector<Group> groups;        // in order, each with all its chunks
};
// REQUIRES: chunks of one size stand together.
void BuildCompressorBatch(const ModelConfig& config, const HistoryShape& history,
                          std::span<const Compression> chunks, CompressorBatch* batch);

struct DecoderBatch {
  std::vector<GatherRow> inputs;
  std::vector<int32_t> positions;       // rotary
  std::vector<int64_t> entries;         // where each row's key and value go: page * 16 + entry
  std::vector<AttentionRow> attention;  // page lists lie in plan.page_ids
};

// Whether the plan's rows recur in other steps: it decodes, and reads no prompts.
bool Decodes(const StepPlan& plan);

// Append rows up to so many, which compute what nobody reads. Of the decoder: a token's, seeing no
// entry and writing none; of the compressor: a block of its own.
void PadCompressorBatch(int64_t rows, CompressorBatch* batch);
void PadDecoderBatch(int64_t rows, DecoderBatch* batch);

// Aborts on a plan whose runs do not cover its rows or that points outside history, pages or fx.
void BuildDecoderBatch(const ModelConfig& config, const HistoryShape& history, const StepPlan& plan,
                       std::span<const int32_t> fx_rows, DecoderBatch* batch);

}  // namespace catserve

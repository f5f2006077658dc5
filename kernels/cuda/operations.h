// The kernels as the host sees them: what each is given, and how it is started. Pointers are to
// device memory unless said otherwise; a launch is in order with what its stream has to do, and
// returns before it is done. The maths stands with each kernel (*.cuh).
#pragma once

#include <cstdint>

#include "kernels/cuda/kv_slab.h"
#include "kernels/cuda/paged_attention.h"
#include "kernels/tensor.h"

namespace catserve::cuda {

// A list of work that one device does in order: a cudaStream_t, or the emulator's.
struct Stream {
  void* handle = nullptr;
};

inline constexpr int kGatherTablesMax = 8;

struct GatherTable {
  const void* data;
  int64_t stride;  // elements from row to row
  DType type;      // F32, BF16 or F16
  bool operator==(const GatherTable&) const = default;
};

struct GatherItem {
  int32_t table;
  int32_t index;        // of the row; or of history, which holds it
  int32_t via_history;  // 0 or 1
};

struct GatherArgs {
  float* out;  // [count, width], rows out_stride elements apart
  int64_t out_stride;
  int32_t width;
  GatherTable tables[kGatherTablesMax];
  const int32_t* history;
  const GatherItem* items;
  const int32_t* count;  // blocks beyond it return at once
  bool operator==(const GatherArgs&) const = default;
};

struct RmsNormArgs {
  void* out;            // [rows, width], rows out_stride elements apart; may be x if both are F32
  const float* x;       // [rows, width], rows x_stride elements apart
  const float* weight;  // [width]
  int64_t out_stride;
  int64_t x_stride;
  int32_t rows;
  int32_t width;
  float eps;
  bool operator==(const RmsNormArgs&) const = default;
};

struct SiluGateArgs {
  void* out;            // [rows, width], rows out_stride elements apart
  const void* gate_up;  // [rows, 2 width], rows in_stride elements apart
  int64_t out_stride;
  int64_t in_stride;
  int32_t rows;
  int32_t width;
  bool operator==(const SiluGateArgs&) const = default;
};

struct NarrowRowsArgs {
  void* out;       // [rows, width], rows out_stride elements apart
  const float* x;  // [rows, width], rows x_stride elements apart
  int64_t out_stride;
  int64_t x_stride;
  int32_t rows;
  int32_t width;
  bool operator==(const NarrowRowsArgs&) const = default;
};

struct QuantizeRowsArgs {
  void* out;      // [rows, out_stride] E4M3, zeros from width on
  float* scales;  // [rows]
  const void* x;  // [rows, width], rows x_stride elements apart
  DType type;     // of x: F32, BF16 or F16
  int64_t out_stride;
  int64_t x_stride;
  int32_t rows;
  int32_t width;
  bool operator==(const QuantizeRowsArgs&) const = default;
};

inline constexpr int kMatVecRowsMax = 8;

struct MatVecArgs {
  void* out;            // [rows, out_features], rows out_stride elements apart: F32, or the type of
                        // x if `narrow`
  const void* x;        // [rows, in], rows x_stride elements apart
  const void* w;        // [out_features, in], rows w_stride elements apart, 16-byte aligned
  const float* scales;  // [out_features] for I8 and E4M3; else null
  int64_t out_stride;
  int64_t x_stride;
  int64_t w_stride;
  int32_t rows;  // at most kMatVecRowsMax
  int32_t in;
  int32_t out_features;
  bool narrow;
  bool add;  // REQUIRES: not narrow
  bool operator==(const MatVecArgs&) const = default;
};

struct PrepareHeadsArgs {
  void* qkv;   // [rows, (heads + 2 kv_heads) * head_dim], rows `stride` elements apart
  DType type;  // of qkv: F32, BF16 or F16
  int64_t stride;
  int32_t heads;
  KvSlab kv;                 // kv_heads and head_dim are read even where nothing is written
  const float* q_norm;       // [head_dim], or null
  const float* k_norm;       // [head_dim], or null
  const float* rotary;       // [positions, head_dim]: cos, then sin
  const int32_t* positions;  // [rows]
  const int64_t* slots;      // [rows] page * kPageEntries + entry, or -1; null: nothing is written
  float norm_eps;
  bool operator==(const PrepareHeadsArgs&) const = default;
};

// A row and the block of rows that it sees.
struct BlockRow {
  int32_t row;    // of qkv and out
  int32_t first;  // of the block
  int32_t count;
};

struct BlockAttentionArgs {
  void* out;        // [rows, heads * head_dim], rows out_stride elements apart
  const void* qkv;  // [rows, (heads + 2 kv_heads) * head_dim], rows `stride` elements apart
  int64_t out_stride;
  int64_t stride;          // what keeps heads aligned for the vectors of the kernel's layout
  const BlockRow* blocks;  // one for each row that is computed; the others are left alone
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim;
  float scale_log2;  // log2(e) / sqrt(head_dim)
  bool operator==(const BlockAttentionArgs&) const = default;
};

// A SampleSpec as the host prepares it (sample_rows.h); lists lie in device memory.
struct SampleRow {
  int32_t greedy;  // 1: the likeliest token; scale, top_k, top_p, least and word are not read
  float scale;     // min(log2(e) / temperature, largest F32)
  float repetition_penalty;
  float presence_penalty;
  float frequency_penalty;
  int32_t penalizes;  // 0: the three above change nothing, prompt and generated are not read
  int32_t top_k;      // 0: all
  float top_p;        // >= 1: all
  uint64_t least;     // trunc(2^40 min_p); 0: all
  uint64_t word;      // RandomWord(seed, choice, position)
  const int32_t* bias_ids;
  const float* biases;
  int32_t bias_count;
  const int32_t* forbidden;
  int32_t forbidden_count;
  const int32_t* prompt;
  int32_t prompt_count;
  const int32_t* generated;
  int32_t generated_count;
  int32_t* drawn_at;  // where the id goes besides SampleArgs::ids; or null
};

struct SampleArgs {
  const float* logits;  // [rows, >= vocab_size], rows `stride` elements apart; not changed
  int64_t stride;
  int32_t vocab_size;  // at most kSampleVocabMax
  const SampleRow* rows;
  const int32_t* count;  // of rows; blocks beyond it return at once
  float* z;              // [rows, vocab_size] scratch
  uint32_t* counts;      // [rows, vocab_size] scratch
  int32_t* ids;          // [rows]
  bool operator==(const SampleArgs&) const = default;
};

struct ScoreTokensArgs {
  const float* logits;  // [rows, >= vocab_size], rows `stride` elements apart
  int64_t stride;
  int32_t vocab_size;
  int32_t top_max;         // columns of top_ids and top_logprobs
  const int32_t* targets;  // [rows], of the vocabulary
  const int32_t* top_n;    // [rows], at most top_max and vocab_size
  float* logprobs;         // [rows]
  int32_t* top_ids;        // [rows, top_max]; top_n[row] of them, likeliest first, then zeros
  float* top_logprobs;     // [rows, top_max]
  bool operator==(const ScoreTokensArgs&) const = default;
};

// -- Launches. Nothing is launched for no rows. `type` is that of activations: F32, BF16 or F16.

void LaunchGather(const GatherArgs& args, int items, Stream stream);
// Writes `type`.
void LaunchRmsNorm(const RmsNormArgs& args, DType type, Stream stream);
void LaunchSiluGate(const SiluGateArgs& args, DType type, Stream stream);
// type: BF16 or F16.
void LaunchNarrowRows(const NarrowRowsArgs& args, DType type, Stream stream);
void LaunchQuantizeRows(const QuantizeRowsArgs& args, Stream stream);

struct MatVecTypes {
  DType x = DType::kF32;        // or BF16 or F16, like the weights; over E4M3: BF16
  DType weights = DType::kF32;  // F32, BF16, F16, I8 or E4M3
  bool operator==(const MatVecTypes&) const = default;
};
void LaunchMatVec(const MatVecArgs& args, const MatVecTypes& types, Stream stream);
// kv: F32, BF16, I8 or E4M3.
void LaunchPrepareHeads(const PrepareHeadsArgs& args, int rows, DType kv, Stream stream);
void LaunchBlockAttention(const BlockAttentionArgs& args, int rows, DType type, Stream stream);

// How much of each list of PagedAttentionArgs there is, and which kernels take it.
struct AttentionLaunch {
  DType kv = DType::kF32;  // or BF16, I8, E4M3
  int group = 1;           // query heads of a warp: 1, 2 or 4
  int split_warps = 1;     // or 8
  int items = 0;
  int pieces = 0;  // over KV of at most 16 bits, heads of 64 or 128
  int combines = 0;
  bool operator==(const AttentionLaunch&) const = default;
};
void LaunchPagedAttention(const PagedAttentionArgs& args, const AttentionLaunch& launch,
                          Stream stream);

void LaunchSample(const SampleArgs& args, int rows, Stream stream);
void LaunchScoreTokens(const ScoreTokensArgs& args, int rows, Stream stream);

}  // namespace catserve::cuda

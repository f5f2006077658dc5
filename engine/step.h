// The one value between deciding (engine/schedule) and computing (engine/model): a StepPlan goes
// in, a StepResult comes out. Neither side knows the other.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace catserve {

using TokenId = int32_t;
using PageId = int32_t;

// How the next token is drawn from a row of logits. Validated by admission; the defaults here are
// those of docs/api.md.
struct SamplingParams {
  float temperature = 1.0f;         // >= 0; 0 is greedy (the argmax, lowest id on ties)
  int32_t top_k = 0;                // 0: off
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1]: relative to the likeliest token
  float repetition_penalty = 1.0f;  // > 0; divides positive, multiplies negative logits of seen ids
  float presence_penalty = 0.0f;    // [-2, 2]; subtracted once for each generated id
  float frequency_penalty = 0.0f;   // [-2, 2]; subtracted per occurrence among generated ids
  std::vector<std::pair<TokenId, float>> logit_bias;  // added to the logit; unique ids
  uint64_t seed = 0;      // randomness is keyed by (seed, choice, position) alone
  int32_t logprobs = -1;  // -1: none; 0: of the drawn token; n: and the n likeliest
};

enum class RowKind : uint8_t {
  kFirst,      // D[p] (g_0): the learned entry that tells the decoder the chunk size
  kSummary,    // the representation of the chunk compressed by compressions[index]
  kSeparator,  // S
  kToken,      // E[history[slot][index]]
};

// One position that enters the decoder in this step.
struct Row {
  RowKind kind = RowKind::kToken;
  int32_t position = 0;  // rotary position
  int32_t index = 0;     // kSummary: into compressions; kToken: position in the slot's history
};

// One complete chunk to compress: tokens [k*C, (k+1)*C) of the slot's history.
struct Compression {
  int32_t slot = 0;
  int32_t chunk_index = 0;  // k
  int32_t chunk_size = 0;   // C
};

// A list of page ids: page_ids[first, first + count) of the plan.
struct PageList {
  int32_t first = 0;
  int32_t count = 0;
};

// Consecutive rows that are appended to one stack of entries. Row i (from 0) of the run writes its
// key and value to entry first_entry + i of `pages` and sees, in this order, the first
// `prefix_entries` entries of `prefix` and the first first_entry + i + 1 entries of `pages`.
// An ordinary sequence has no prefix; a branch of Score reads its sequence's summaries as prefix.
// Entries of a prefix may be written by another run of the same step.
struct RowRun {
  int32_t slot = 0;
  int32_t chunk_size = 0;  // 0 for a dense model
  PageList prefix;
  int32_t prefix_entries = 0;
  PageList pages;
  int32_t first_entry = 0;
  int32_t first_row = 0;  // into StepPlan::rows
  int32_t row_count = 0;
};

// Tokens that the host puts into a slot's history (prompts). tokens[first, first + count).
struct HistoryWrite {
  int32_t slot = 0;
  int32_t position = 0;
  int32_t first = 0;
  int32_t count = 0;
};

// Draw one token from the logits of `row`; the executor stores it at history[slot][position].
struct Sample {
  int32_t row = 0;
  int32_t slot = 0;
  int32_t position = 0;       // number of tokens before it: also the key of its randomness
  int32_t prompt_tokens = 0;  // history before this is the prompt (penalties tell them apart)
  int32_t choice = 0;         // which of the request's n choices: also a key of its randomness
  const SamplingParams* params = nullptr;  // outlives Collect of this step
  std::span<const TokenId> forbidden;      // never drawn (min_tokens); outlives Collect
};

// Log-probability of history[slot][position] under the logits of `row`, and the top_n likeliest.
struct ScoreRow {
  int32_t row = 0;
  int32_t slot = 0;
  int32_t position = 0;
  int32_t top_n = 0;
};

// Copies the first `entries` entries of a page, in every layer: a sequence that goes on from the
// summaries on another's unsealed page. The rest of `to` is undefined afterwards.
struct PageCopy {
  PageId from = 0;
  PageId to = 0;
  int32_t entries = 0;  // 1 to kPageEntries
};

struct StepPlan {
  std::vector<TokenId> tokens;
  std::vector<HistoryWrite> history_writes;  // done first
  std::vector<PageCopy> page_copies;         // then these, one after the other
  std::vector<Compression> compressions;     // then these, all together
  std::vector<RowRun> runs;                  // then one decoder batch
  std::vector<Row> rows;
  std::vector<PageId> page_ids;
  std::vector<Sample> samples;  // then these, from the rows' logits
  std::vector<ScoreRow> scores;

  bool empty() const { return rows.empty(); }
};

struct TokenLogprob {
  TokenId id = 0;
  float logprob = 0;  // natural logarithm, of the model's distribution before any sampling setting
};

struct SampleResult {
  TokenLogprob token;
  std::vector<TokenLogprob> top;  // likeliest first; empty unless asked for
};

// The step thread's time, by what it was spent on. Where a device computes on its own, its time
// shows only as far as it was waited for: the other parts are what giving it work took.
struct StepTimes {
  std::chrono::nanoseconds plan{};      // the engine's: deciding
  std::chrono::nanoseconds prepare{};   // the executor's, to `wait`: token histories, page copies
  std::chrono::nanoseconds compress{};  // chunks
  std::chrono::nanoseconds decode{};    // the decoder's layers
  std::chrono::nanoseconds sample{};    // the output layer, drawing, scores
  std::chrono::nanoseconds wait{};      // for the device; taking its results
  std::chrono::nanoseconds commit{};    // the engine's: taking in results, reporting them

  StepTimes& operator+=(const StepTimes& other) {
    plan += other.plan;
    prepare += other.prepare;
    compress += other.compress;
    decode += other.decode;
    sample += other.sample;
    wait += other.wait;
    commit += other.commit;
    return *this;
  }
};

// Splits a thread's time into parts.
class LapTimer {
 public:
  // The time since the last lap, or since construction.
  std::chrono::nanoseconds Lap() {
    const auto now = std::chrono::steady_clock::now();
    return now - std::exchange(last_, now);
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// How the parts of steps that recur reached a device that can replay them, since it was started.
// All 0 where there is none.
struct StepParts {
  int64_t replayed = 0;  // in one go, as recorded
  int64_t recorded = 0;
  int64_t first = 0;     // launch by launch, as nothing like it came before
  int64_t differed = 0;  // launch by launch, as it differed from what was recorded
  int64_t refused = 0;   // launch by launch, as the device would not record it
};

// Results in the order of the plan's samples and scores.
struct StepResult {
  std::vector<SampleResult> samples;
  std::vector<SampleResult> scores;
  StepTimes times;  // without the engine's parts
  StepParts parts;
};

// Computes steps in order. Not thread-safe: the step thread alone calls it.
class StepExecutor {
 public:
  virtual ~StepExecutor() = default;

  // Starts a step. REQUIRES: at most PipelineDepth() steps launched and not yet collected; the plan
  // need not outlive the call. A plan never depends on the token values of a step not collected.
  virtual void Launch(const StepPlan& plan) = 0;

  // Waits for the oldest launched step and returns its result.
  virtual StepResult Collect() = 0;

  // Steps that may be in flight when the next is launched: 0 computes in lock-step (the CPU).
  virtual int PipelineDepth() const = 0;
};

}  // namespace catserve

// An executor without a model, which watches over every plan it is given.
//
// An entry of KV memory holds a 64-bit symbol of what a model would have computed there: of the
// row's input, its rotary position and everything that the row sees, in order. For every row the
// symbol that the plan leads to is compared with the one that the golden README's section 5 demands
// of the slot's tokens alone. So a wrong page, a stale or missing entry, a wrong order, position or
// chunk is found at the row where it happens. Tokens and log-probabilities are drawn from the
// symbols: equal visible content gives equal tokens, whatever else is in the batch. A violation
// aborts and says what was wrong.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/geometry.h"
#include "engine/step.h"

namespace catserve {

// What compressing a token is said to take.
inline constexpr std::chrono::milliseconds kFakeTokenTime{1};

struct FakeExecutorOptions {
  int32_t slots = 32;
  int64_t kv_pages = 1024;
  int32_t step_rows_max = 1024;
  int pipeline_depth = 0;
  // Called in Collect before the step is computed, for a test that needs slow or blocked steps.
  std::function<void()> before_collect;
};

// Symbols that the rows of a text must have, from its tokens alone.
class ReferenceRows {
 public:
  // REQUIRES: tokens outlives this, and only grows.
  ReferenceRows(const ModelGeometry& model, int32_t chunk_size, const std::vector<TokenId>& tokens);

  uint64_t Summary(int32_t k);    // g_k
  uint64_t Separator(int32_t k);  // S of block k
  uint64_t Token(int32_t position);

  // What rows are made of; shared with the executor, which computes them from a plan.
  static uint64_t Mix(uint64_t a, uint64_t b);
  static uint64_t FirstInput(int32_t chunk_size);
  static uint64_t SummaryInput(int32_t chunk_size, int32_t chunk, const TokenId* chunk_tokens);
  static uint64_t SeparatorInput() { return 0x5e9; }
  static uint64_t TokenInput(TokenId id) { return Mix(0x70c, id); }
  // The symbol of a row that sees entries whose symbols, mixed in order, give `seen`.
  static uint64_t RowSymbol(uint64_t input, int32_t position, uint64_t seen);

 private:
  uint64_t Seen(int32_t summaries);  // g_0 .. g_(summaries - 1), mixed in order

  ModelKind kind_;
  int32_t chunk_size_;
  const std::vector<TokenId>& tokens_;
  std::vector<uint64_t> summaries_;
  std::vector<uint64_t> seen_;        // seen_[n]: the first n summaries
  std::vector<uint64_t> dense_seen_;  // the same for a dense model's tokens
};

class FakeExecutor : public StepExecutor {
 public:
  FakeExecutor(ModelGeometry model, FakeExecutorOptions options);

  void Launch(const StepPlan& plan) override;
  StepResult Collect() override;
  int PipelineDepth() const override { return options_.pipeline_depth; }

  // Stands in front of every violation: the seed of a random trace.
  void set_label(std::string label) { label_ = std::move(label); }
  int32_t rows_most() const { return rows_most_; }  // in one step so far

 private:
  struct SlotState {
    std::vector<TokenId> history;
    int32_t chunk_size = 0;
    std::optional<ReferenceRows> reference;  // of `history` at `chunk_size`
  };
  struct Step {                       // of the plan being computed
    std::vector<uint64_t> symbols;    // by row
    std::vector<int32_t> predicts;    // by row: position in the history, -1: nothing
    std::vector<int32_t> slots;       // by row
    std::vector<int32_t> page_owner;  // by page: slot that writes it in this step, -1: none
  };

  void CheckBounds(const StepPlan& plan);
  void WriteHistory(const StepPlan& plan);
  void CopyPages(const StepPlan& plan);
  void CheckCompressions(const StepPlan& plan);
  void ComputeRun(const StepPlan& plan, const RowRun& run, Step& step);
  void ComputeRow(const StepPlan& plan, const RowRun& run, int32_t index, Step& step);
  uint64_t Input(const StepPlan& plan, const RowRun& run, const Row& row);
  // The symbol that the row must have, and what it predicts.
  uint64_t Expected(const StepPlan& plan, const RowRun& run, const Row& row, int32_t seen,
                    int32_t& predicts);
  ReferenceRows& Reference(const RowRun& run);
  int64_t EntryAt(const StepPlan& plan, PageList pages, int32_t entry);
  SampleResult Draw(const Sample& sample, const Step& step);
  SampleResult Score(const ScoreRow& score, const Step& step);
  SampleResult Describe(uint64_t symbol, TokenId id, int32_t top_n) const;
  void Check(bool holds, const std::string& message) const;

  ModelGeometry model_;
  FakeExecutorOptions options_;
  std::vector<uint64_t> entries_;  // by page * kPageEntries + entry; 0: never written
  std::vector<SlotState> slots_;
  std::deque<StepPlan> launched_;
  std::string label_;
  int32_t rows_most_ = 0;
};

}  // namespace catserve

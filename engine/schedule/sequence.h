// One growing sequence: which rows it needs to have read its tokens, and the memory they fill.
#pragma once

#include <cstdint>

#include "engine/schedule/layout.h"
#include "engine/schedule/page_table.h"
#include "engine/schedule/prefix_cache.h"
#include "engine/schedule/step_builder.h"

namespace catserve {

// The rows that one Fill added to the step: indices [first_row, first_row + count), which write
// entries [first_entry, first_entry + count).
struct FilledRows {
  int32_t first_row = 0;
  int32_t first_entry = 0;
  int32_t count = 0;
  int32_t last_row() const { return first_row + count - 1; }
};

// Counts tokens and never sees one: lengths advance when a step is planned. Prefill and decoding
// are the same act, bringing the stack to that of more tokens. Not thread-safe.
class Sequence {
 public:
  // Starts empty on the history of `slot`. REQUIRES: pool outlives the sequence.
  Sequence(Layout layout, int32_t slot, PagePool& pool)
      : layout_(layout), slot_(slot), table_(pool) {}

  // Sets out to have read the first `tokens` tokens of the history. A chunk that closes drops its
  // separator and tokens here. REQUIRES: complete(), tokens >= tokens().
  void Extend(int32_t tokens);

  // Starts with what the prefix cache found of its tokens. REQUIRES: nothing was filled yet, and
  // the hit is of this layout and not longer than ReusableUnits(tokens()). Copies no page for
  // which the pool has no room; returns the units that it took.
  int32_t Reuse(const PrefixHit& hit, StepBuilder& step);

  // Adds as many of the missing rows as the step and the pool have room for, in one run.
  FilledRows Fill(StepBuilder& step);

  // Pages that Fill needs besides those it holds, once it has set out to read `tokens` tokens.
  int64_t PagesMissing(int32_t tokens) const;

  // Units (Layout) whose entries are written, by rows planned so far.
  int32_t UnitsWritten() const;

  // Tokens that those rows have read: all, or as yet whole units.
  int32_t TokensRead() const {
    return complete() ? tokens_ : UnitsWritten() * layout_.UnitTokens();
  }

  // True if no row is missing: the last one predicts token tokens().
  bool complete() const { return table_.entries() == layout_.Entries(tokens_) && tokens_ > 0; }

  int32_t tokens() const { return tokens_; }
  int32_t slot() const { return slot_; }
  const Layout& layout() const { return layout_; }
  const PageTable& table() const { return table_; }
  PageTable& table() { return table_; }  // for the prefix cache

 private:
  Layout layout_;
  int32_t slot_;
  PageTable table_;
  int32_t tokens_ = 0;
};

}  // namespace catserve

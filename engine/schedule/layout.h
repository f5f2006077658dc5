// Which rows make up a sequence: the golden README's sections 5 to 7, 9 and 10 as arithmetic.
//
// At rest the stack of a sequence of n = kC + r tokens holds
//   cat        g_0 g_1 .. g_k  S  t_kC .. t_n-1     rotary positions 0 0 .. 0  1  2 .. 1+r
//   cat_fixed  g_0 g_1 .. g_k     t_kC .. t_n-1                      0 0 .. 0     1 .. r
//   dense                         t_0  .. t_n-1                                   0 .. n-1
// and the last row gives the logits of t_n. So accepting a token is: keep the entries that both
// stacks share, and run the rows that the new one has besides.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/geometry.h"
#include "engine/step.h"

namespace catserve {

// A plain value.
class Layout {
 public:
  // chunk_size: one that the model offers; 0 for a dense model.
  Layout(const ModelGeometry& model, int32_t chunk_size);

  int32_t chunk_size() const { return chunk_size_; }
  bool compresses() const { return chunk_size_ > 0; }

  // Complete chunks among the first `tokens` tokens; 0 for a dense model.
  int32_t Chunks(int32_t tokens) const { return compresses() ? tokens / chunk_size_ : 0; }
  // Summaries g_0 .. g_k of `tokens` tokens; 0 for a dense model.
  int32_t Summaries(int32_t tokens) const { return compresses() ? Chunks(tokens) + 1 : 0; }
  // Entries of `tokens` tokens at rest.
  int32_t Entries(int32_t tokens) const;

  // The row that writes `entry` in the stack of `tokens` tokens. The index of a kSummary is its
  // chunk (the step's compression is not known here); of a kToken its place in the history.
  Row RowOf(int32_t entry, int32_t tokens) const;

  // What the prefix cache shares is counted in units: the entries that never change once written,
  // a summary for each complete chunk; every token of a dense model.
  int32_t UnitTokens() const { return compresses() ? chunk_size_ : 1; }
  int32_t FirstUnitEntry() const { return compresses() ? 1 : 0; }  // behind g_0
  int32_t Units(int32_t tokens) const { return compresses() ? Chunks(tokens) : tokens; }
  // Units of `tokens` tokens that need not be computed again: all that leave a row to run, which
  // predicts.
  int32_t ReusableUnits(int32_t tokens) const {
    return std::min(Units(tokens), Entries(tokens) - 1 - FirstUnitEntry());
  }

  // The place in the history of the token that this row predicts. Only rows from g_k on predict,
  // and in a `cat` model from S on.
  int32_t Predicts(int32_t entry, int32_t tokens) const;

 private:
  int32_t OpenFirst(int32_t tokens) const { return Chunks(tokens) * chunk_size_; }

  int32_t chunk_size_ = 0;
  int32_t separators_ = 0;
};

}  // namespace catserve

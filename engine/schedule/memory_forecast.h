// How many pages a set of sequences will hold at their most, if each reads a token a step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/geometry.h"
#include "engine/step.h"

namespace catserve {

// One sequence, now and to its expected end.
struct Holding {
  int32_t chunk_size = 0;
  int32_t tokens = 0;             // read, or to be read by the prefill that goes on
  int32_t end = 0;                // tokens when it ends, >= tokens
  bool stays = false;             // its steps are not known: it counts with its most all the time
  int64_t extra_pages = 0;        // held besides, as long as it runs; < 0: of another, to be shared
  std::vector<PageId> shareable;  // leading pages that others may hold, too
};

// Pages that a sequence holds at its most while it grows from a prefill of `from` tokens to `to`.
int64_t PagesBetween(const ModelGeometry& model, int32_t chunk_size, int32_t from, int32_t to);

// Most distinct pages held at any time from now on. A page that several hold counts once, for the
// one that stays longest. pages_total: of the pool, whose ids `shareable` names.
int64_t ForecastPages(const ModelGeometry& model, std::vector<Holding> holdings,
                      int64_t pages_total);

// The share of max_tokens that requests came to generate: the mean of those that ended by
// themselves, the last ones counting most. 1 before the first.
class LengthForecast {
 public:
  void Learn(int32_t generated, int32_t max_tokens);
  // Tokens that a choice is expected to generate; one that is past that goes on to the end.
  int32_t Expect(int32_t generated, int32_t max_tokens) const;

 private:
  double share_ = 1;
};

}  // namespace catserve

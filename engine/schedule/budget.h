// What a chunk size costs in memory and in quality, and which one a request gets: the policy of
// automatic budgets. A fixed chunk size is never changed, and none is used that a budget does not
// allow: its range, and the sizes that its bound on quality leaves (Budget::among).
//
// At the start a request gets the best chunk size (Quality) that its own bound and the forecast of
// memory (memory_forecast.h) allow at its expected length, leaving room for those who wait behind
// it, each at its smallest; where there is no such room it takes the smallest that fits, for then
// the load is more than the server can take. If none fits, running requests are
// coarsened, but only as many as make the room, and none if that is not enough. The same happens
// when a forecast was wrong and memory runs out.
//
// Who is coarsened: the change that frees most pages at the expected end for each unit of quality
// lost. At the end, because a sequence that is small now and large later is the one that hurts; and
// counted exactly, because a coarser chunk size is not always a smaller one (a sequence holds about
// n/C + C entries) and shared pages free nothing. A change is a prefill: what frees nothing is
// never done, and who is about to end is not coarsened for one who waits.
//
// Back to a better chunk size it goes only when nobody waits, when the forecast with the change
// leaves half of the memory free, and 64 tokens after the last change: what was coarsened for room
// is not refined as soon as there is some, only to be coarsened again.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "engine/geometry.h"
#include "engine/schedule/request.h"

namespace catserve {

inline constexpr int32_t kCoarsenTokensLeft = 16;  // with fewer to come, it ends soon enough
inline constexpr int32_t kRefineAfterTokens = 64;  // since the last change, and still to come
inline constexpr double kRefineBelow = 0.5;        // of all pages, forecast with the change

// How much a chunk size loses against the best one; only differences count. Each measure has a
// column, and a budget says which one counts for its request. All are fractions of the best, so
// that losses of different columns compare.
class Quality {
 public:
  // The first column is that of requests that name no measure. Where a column is empty, or not
  // there, each doubling loses the same.
  explicit Quality(std::vector<QualityColumn> columns = {}) : columns_(std::move(columns)) {}

  // REQUIRES: the budget's column is empty or has a value for the chunk size.
  double Loss(const Budget& budget, int32_t chunk_size) const;

 private:
  std::vector<QualityColumn> columns_;
};

// Tokens that a choice has read when it ends at the latest. The last token drawn is never read.
int32_t LargestLength(const Request& request);

// Tokens that a request reads and generates, over all choices, if none stops early: what it counts
// with where owners share and waiting is estimated.
int64_t LargestWork(const Request& request);

// Pages that each choice of a request holds at its most, at one chunk size (0 for a dense model).
int64_t PagesPerChoice(const ModelGeometry& model, const Request& request, int32_t chunk_size);

// The chunk sizes that a budget allows, finest first; {0} for a dense model; may be empty.
std::vector<int32_t> AllowedChunkSizes(const ModelGeometry& model, const Budget& budget);

// True if the budget's own bound, where it has one, allows so many pages.
bool KeepsBound(const ModelGeometry& model, const Budget& budget, int64_t pages);

// A chunk size at which the request could run on an empty server of `pages` pages, reading its
// prompt within its own bound; nothing if there is none.
std::optional<int32_t> FitsAlone(const ModelGeometry& model, const Request& request, int64_t pages);

// A running request, as the policy sees it.
struct Resident {
  const Budget* budget = nullptr;
  int32_t chunk_size = 0;
  int32_t choices = 1;      // that have not ended
  int32_t tokens = 0;       // of the longest choice
  int32_t end = 0;          // expected
  int64_t pages_owned = 0;  // held by this request alone
  // Held by others, too; and one for each of its own choices but the first that holds a page.
  int64_t pages_shared = 0;
  int32_t tokens_since_change = 0;
  int32_t tokens_left = INT32_MAX;  // until it ends, at most
};

// Pages that all its choices come to hold, now and until the expected end, at a chunk size.
int64_t PagesNow(const ModelGeometry& model, const Resident& resident, int32_t chunk_size);
int64_t PagesAtEnd(const ModelGeometry& model, const Resident& resident, int32_t chunk_size);

// The chunk sizes to start with, best first: those that keep the bound to the expected end; if none
// does, the one that keeps it longest.
std::vector<int32_t> StartSizes(const ModelGeometry& model, const Quality& quality,
                                const Resident& resident);

// The chunk size of its budget that holds least at the expected end.
int32_t SmallestSize(const ModelGeometry& model, const Resident& resident);

struct Change {
  size_t resident = 0;  // index
  int32_t chunk_size = 0;
};

// The coarsening that frees most at the expected end for the quality it loses; with `at_once`, of
// those that free pages now, too; else of those that have kCoarsenTokensLeft to come. Of equal
// ones, that of the last resident.
std::optional<Change> BestCoarsening(const ModelGeometry& model, const Quality& quality,
                                     std::span<const Resident> residents, bool at_once);

// A chunk size at which a request that has met its bound goes on; nothing if it must end.
std::optional<int32_t> SizeWithinBound(const ModelGeometry& model, const Quality& quality,
                                       const Resident& resident);

// Better chunk sizes than the present one, best first; empty if it is too early or too late.
std::vector<int32_t> Refinements(const ModelGeometry& model, const Quality& quality,
                                 const Resident& resident);

}  // namespace catserve

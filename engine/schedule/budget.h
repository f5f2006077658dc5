// How much memory a request will take, and which chunk size it gets.
//
// The policy of an automatic budget. Within the range that the request allows, the finest chunk
// size is taken whose pages, at the largest length the request can reach, fit both the request's
// own bound and the memory that nobody has reserved. Finest first, because recall falls as chunks
// grow and memory that is free costs nothing. Largest length, because it is what gets reserved, and
// no better forecast of a request's length is known. Every candidate is computed exactly: a coarser
// chunk size is not always a smaller one (a sequence holds about n/C + C entries). If none fits now
// but one could fit an empty server, the request waits.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/geometry.h"
#include "engine/schedule/request.h"

namespace catserve {

// Tokens that a choice has read when it ends at the latest. The last token drawn is never read.
int32_t LargestLength(const Request& request);

// Pages that each choice of a request holds at its most, at one chunk size (0 for a dense model).
int64_t PagesPerChoice(const ModelGeometry& model, const Request& request, int32_t chunk_size);

// The chunk sizes that a budget allows, finest first; {0} for a dense model; may be empty.
std::vector<int32_t> AllowedChunkSizes(const ModelGeometry& model, const Budget& budget);

struct Grant {
  int32_t chunk_size = 0;
  int64_t pages_per_choice = 0;
};

// What a request gets when `pages_available` pages are unreserved; nothing if it does not fit.
std::optional<Grant> Choose(const ModelGeometry& model, const Request& request,
                            int64_t pages_available);

}  // namespace catserve

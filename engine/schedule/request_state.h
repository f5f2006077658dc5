// What the scheduler keeps of an accepted request, from its arrival until nothing refers to it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "engine/schedule/request.h"
#include "engine/schedule/score_sequence.h"
#include "engine/schedule/sequence.h"

namespace catserve {

// One of a request's n choices; a text to score is the only choice of its request.
struct ChoiceState {
  std::optional<Sequence> sequence;    // kGenerate, while it holds a slot
  std::optional<ScoreSequence> score;  // kScore, while it holds a slot
  int32_t slot = -1;
  int64_t pages_reserved = 0;
  bool prompt_written = false;
  int32_t drawn = 0;     // tokens that planned steps draw; their values may still be on their way
  int32_t reported = 0;  // tokens sent to the caller
  bool ended = false;

  int64_t pages() const {
    if (sequence) return std::ssize(sequence->table().pages());
    return score ? score->pages() : 0;
  }
};

// Shared with the steps in flight: samples point at `request`, which outlives them so.
struct RequestState {
  RequestKey key = 0;
  Request request;
  std::vector<ChoiceState> choices;  // one per choice from the start
  int32_t chunk_size = 0;
  absl::Time arrived;
  std::optional<absl::Time> started;   // its first row was planned
  std::optional<absl::Time> answered;  // its first result came
  int64_t chunks_compressed = 0;
  int64_t pages_peak = 0;

  int32_t prompt_tokens() const { return static_cast<int32_t>(request.prompt.size()); }
  bool ended() const {
    for (const ChoiceState& choice : choices) {
      if (!choice.ended) return false;
    }
    return true;
  }
  // When it ends whatever happens.
  absl::Time Limit() const { return std::min(request.deadline, arrived + request.time_limit); }
};

}  // namespace catserve

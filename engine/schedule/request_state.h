// What the scheduler keeps of an accepted request, from its arrival until nothing refers to it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "engine/schedule/request.h"
#include "engine/schedule/score_sequence.h"
#include "engine/schedule/sequence.h"

namespace catserve {

// A request waits one level of priority as long as this: the whole rule of ageing.
inline constexpr absl::Duration kAgeingPerLevel = absl::Seconds(1);

// One of a request's n choices; a text to score is the only choice of its request.
struct ChoiceState {
  std::vector<TokenId> tokens;         // prompt and generated, as far as their values are known
  std::optional<Sequence> sequence;    // kGenerate, while it holds a slot
  std::optional<ScoreSequence> score;  // kScore, while it holds a slot
  int32_t slot = -1;
  bool history_written = false;  // to its slot
  bool looked_up = false;        // its prefix in the cache, since it got its sequence
  bool prefilling = false;       // the sequence has not yet come to its end once
  int32_t units_kept = 0;        // given to the prefix cache
  bool prompt_kept = false;      // all of its prefill was
  int32_t waited = 0;            // steps that had no room for its next row
  int32_t drawn = 0;             // tokens that planned steps draw
  int32_t reported = 0;          // tokens sent to the caller
  int32_t scored_to = 1;         // kScore: scores of the tokens before this were reported
  bool ended = false;

  std::span<const PageId> pages() const {
    return sequence ? sequence->table().pages() : std::span<const PageId>();
  }
};

// Shared with the steps in flight: samples point at `request`, which outlives them so.
struct RequestState {
  RequestKey key = 0;
  Request request;
  std::vector<ChoiceState> choices;  // one per choice from the start
  int32_t chunk_size = 0;
  bool paused = false;
  bool at_bound = false;  // of its memory, with draws on their way: it ends when they have come
  absl::Time arrived;
  absl::Time turn;                     // its place among its owner's: see Before
  int64_t work = 0;                    // that it counts with among owners: see LargestWork
  std::optional<int64_t> started_at;   // virtual time of its owner: see WaitingLine
  std::optional<absl::Time> started;   // its first row was planned
  std::optional<absl::Time> answered;  // its first result came
  int32_t cached_tokens = 0;           // of the prompt, found by the first choice
  int32_t changed_at = 0;              // tokens read when its chunk size was set
  int32_t preemptions = 0;
  int32_t prefill_pieces = 0;
  absl::Duration compressing;
  std::vector<BudgetChangedEvent> budget_changes;
  int64_t chunks_compressed = 0;
  int64_t pages_peak = 0;

  int32_t prompt_tokens() const { return static_cast<int32_t>(request.prompt.size()); }
  bool generates() const { return request.task == Task::kGenerate; }
  bool ended() const {
    return std::all_of(choices.begin(), choices.end(),
                       [](const ChoiceState& choice) { return choice.ended; });
  }
  int32_t live_choices() const {
    return static_cast<int32_t>(std::count_if(
        choices.begin(), choices.end(), [](const ChoiceState& choice) { return !choice.ended; }));
  }
  // Tokens that the sequence of a choice has to have read before it draws again.
  int32_t TokensToRead(const ChoiceState& choice) const { return prompt_tokens() + choice.drawn; }
  bool Draws(const ChoiceState& choice) const {  // more tokens than it has
    return !choice.ended && choice.drawn < request.stop.max_tokens;
  }
  // Whether its streams get rows.
  bool Streams() const { return !paused && !at_bound; }
  // True if results of it are still on their way.
  bool in_flight() const {
    return std::any_of(choices.begin(), choices.end(), [](const ChoiceState& choice) {
      return !choice.ended && choice.drawn > choice.reported;
    });
  }
  // When it ends whatever happens.
  absl::Time Limit() const { return std::min(request.deadline, arrived + request.time_limit); }

  // The order of turns: by arrival, a priority of p counting as p levels of ageing later.
  bool Before(const RequestState& other) const {
    return std::pair(turn, key) < std::pair(other.turn, other.key);
  }
};

}  // namespace catserve

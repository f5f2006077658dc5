// A request as the engine sees it, and what it reports back. Plain values, no threads.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "engine/step.h"

namespace catserve {

// What chunk sizes lose by one measure, as a fraction of the best value; empty: not measured.
using QualityColumn = std::map<int32_t, double>;

using RequestKey = uint64_t;  // unique in the life of the process; given by Engine::Submit

// What a request allows its context to cost.
struct Budget {
  int32_t chunk_size = 0;  // exact when > 0; 0 with a dense model or when `automatic`
  bool automatic = false;
  int32_t chunk_size_min = 0;
  int32_t chunk_size_max = 0;
  int64_t kv_bytes_max = 0;    // 0: no bound
  std::vector<int32_t> among;  // when `automatic`: these alone, if there are any
  int32_t quality_column = 0;  // of Quality (budget.h), by which chunk sizes are ranked
};

struct StopRule {
  int32_t max_tokens = 0;
  int32_t min_tokens = 0;         // before this, stop ids are never drawn
  std::vector<TokenId> stop_ids;  // the eos id among them unless ignore_eos
};

enum class Task : uint8_t { kGenerate, kScore };

struct Request {
  Task task = Task::kGenerate;
  std::vector<TokenId> prompt;  // for kScore: the text to score
  Budget budget;
  SamplingParams sampling;  // sampling.logprobs also tells kScore how many top ids
  StopRule stop;
  int32_t choices = 1;     // n
  int32_t priority = 0;    // lower runs first
  std::string cache_salt;  // requests of different salts share no memory
  std::string owner;  // whose fair share and limits it counts in; empty: nobody's in particular
  bool bypass_prefix_cache = false;                      // neither reads nor fills the prefix cache
  absl::Time deadline = absl::InfiniteFuture();          // the transport's: ends with kDeadline
  absl::Duration time_limit = absl::InfiniteDuration();  // gentler: ends with kTimeLimit
};

enum class FinishReason : uint8_t {
  kStopToken,  // drew one of stop_ids (the id is reported, as the last of the tokens), or EndChoice
  kLength,     // max_tokens; kScore: the whole text is scored
  kTimeLimit,
  kCancelled,
  kDeadline,
  kKvLimit,  // Budget::kv_bytes_max is met and no chunk size left that would keep it
  kFailed,   // the engine stopped
};

// The chunk size of all choices changed; their next tokens are those of a fresh prefill at it.
struct BudgetChangedEvent {
  int32_t from_chunk_size = 0;
  int32_t to_chunk_size = 0;
  int32_t at_token = 0;  // tokens of the longest choice, prompt included, when it changed
};

struct Usage {
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t generated_tokens = 0;  // over all choices
  int32_t chunk_size = 0;        // at the end; 0 for dense
  int64_t chunks_compressed = 0;
  int64_t kv_bytes_peak = 0;   // distinct pages held, over all choices
  int32_t prefill_pieces = 0;  // steps that read of its prompts, or of the text to score
  int32_t preemptions = 0;     // times it lost its memory and was computed anew
  std::vector<BudgetChangedEvent> budget_changes;
  absl::Duration queued, prefilling, decoding;
  absl::Duration compressing;  // its share, by tokens, of the steps' time for chunks
};

struct StartedEvent {
  int32_t prompt_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t chunk_size = 0;
};
struct TokensEvent {
  int32_t choice = 0;
  std::vector<SampleResult> tokens;
};
struct ChoiceEndEvent {  // one for each choice of kGenerate, before the FinishedEvent
  int32_t choice = 0;
  FinishReason reason = FinishReason::kLength;
};
struct ScoresEvent {  // kScore: log-probabilities of tokens [first, first + scores.size())
  int32_t first = 0;
  std::vector<SampleResult> scores;
};
// It lost its memory; what comes next comes after it was computed anew.
struct PreemptedEvent {};
struct FinishedEvent {  // exactly one, last; the reason is that of the choice that ended last
  FinishReason reason = FinishReason::kLength;
  Usage usage;
};
using Event = std::variant<StartedEvent, TokensEvent, BudgetChangedEvent, ChoiceEndEvent,
                           ScoresEvent, PreemptedEvent, FinishedEvent>;

// Called on the step thread, in order; must return at once and must not call the engine.
using EventSink = std::function<void(Event)>;

}  // namespace catserve

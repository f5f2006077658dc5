#include "engine/admission.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <unordered_set>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "engine/schedule/budget.h"
#include "engine/schedule/drain_rate.h"
#include "engine/schedule/memory_forecast.h"
#include "engine/schedule/scheduler.h"

namespace catserve {
namespace {

constexpr char kRetryAfterPayload[] = "catserve/retry_after_ms";

template <typename... Parts>
absl::Status Refuse(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// "name value is out of range; allowed: low to high". NaN is never in range.
template <typename T>
absl::Status InRange(absl::string_view field, T value, T low, T high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Refuse(field, " ", value, " is out of range; allowed: ", low, " to ", high);
}

// The same without the low end.
absl::Status Above(absl::string_view field, float value, float low, float high) {
  if (value > low && value <= high) return absl::OkStatus();
  return Refuse(field, " ", value, " is out of range; allowed: more than ", low, ", up to ", high);
}

absl::Status FirstError(std::initializer_list<absl::Status> checks) {
  for (const absl::Status& check : checks) {
    if (!check.ok()) return check;
  }
  return absl::OkStatus();
}

bool IsToken(const ModelGeometry& model, TokenId id) { return id >= 0 && id < model.vocab_size; }

absl::Status CheckToken(const ModelGeometry& model, absl::string_view field, TokenId id) {
  if (IsToken(model, id)) return absl::OkStatus();
  return Refuse(field, ": token id ", id, " is not in the vocabulary; allowed: 0 to ",
                model.vocab_size - 1);
}

absl::Status CheckOffered(const ModelGeometry& model, absl::string_view field, int32_t size) {
  if (model.Offers(size)) return absl::OkStatus();
  return Refuse(field, " ", size, " is not offered; this model offers ",
                absl::StrJoin(model.chunk_sizes, ", "));
}

absl::Status CheckBudget(const ModelGeometry& model, const Budget& budget) {
  if (!model.compresses()) {
    if (budget.automatic) return Refuse("auto: a dense model has no chunk sizes; leave it unset");
    if (budget.chunk_size == 0) return absl::OkStatus();
    return Refuse("chunk_size ", budget.chunk_size,
                  ": a dense model has no chunk sizes; leave it unset");
  }
  if (!budget.automatic) return CheckOffered(model, "chunk_size", budget.chunk_size);
  const int32_t low = budget.chunk_size_min, high = budget.chunk_size_max;
  if (low != 0) {
    if (auto s = CheckOffered(model, "auto.chunk_size_min", low); !s.ok()) return s;
  }
  if (high != 0) {
    if (auto s = CheckOffered(model, "auto.chunk_size_max", high); !s.ok()) return s;
  }
  if (high != 0 && low > high) {
    return Refuse("auto.chunk_size_min ", low, " is more than auto.chunk_size_max ", high);
  }
  if (budget.kv_bytes_max < 0) {
    return Refuse("auto.kv_bytes_max ", budget.kv_bytes_max, " is out of range; allowed: > 0");
  }
  if (AllowedChunkSizes(model, budget).empty()) {
    return Refuse("auto.chunk_size_min ", low, " to auto.chunk_size_max ", high,
                  " holds none of the chunk sizes ", absl::StrJoin(budget.among, ", "),
                  " that auto.quality_loss_max and auto.quality_task allow; widen the range, or "
                  "allow more loss");
  }
  return absl::OkStatus();
}

absl::Status CheckPrompt(const ModelGeometry& model, const Request& request) {
  const bool score = request.task == Task::kScore;
  const absl::string_view field = score ? "text" : "prompt";
  const auto tokens = static_cast<int64_t>(request.prompt.size());
  if (tokens == 0) return Refuse(field, " is empty; the first token has to be given");
  if (score && tokens == 1) {
    return Refuse("text has 1 token, which has to be given; scoring needs 2 or more");
  }
  if (tokens > model.block_size) {
    return Refuse(field, " has ", tokens, " tokens, more than the context of ", model.block_size);
  }
  for (const TokenId id : request.prompt) {
    if (auto s = CheckToken(model, field, id); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status CheckLogitBias(const ModelGeometry& model, const SamplingParams& sampling) {
  if (sampling.logit_bias.size() > kLogitBiasMax) {
    return Refuse("logit_bias has ", sampling.logit_bias.size(), " ids; allowed: at most ",
                  kLogitBiasMax);
  }
  std::unordered_set<TokenId> seen;
  for (const auto& [id, bias] : sampling.logit_bias) {
    if (auto s = CheckToken(model, "logit_bias", id); !s.ok()) return s;
    if (auto s = InRange("logit_bias", bias, -kBiasMax, kBiasMax); !s.ok()) return s;
    if (!seen.insert(id).second) return Refuse("logit_bias names token id ", id, " twice");
  }
  return absl::OkStatus();
}

absl::Status CheckSampling(const ModelGeometry& model, const SamplingParams& sampling) {
  const float count_max = kCountPenaltyMax;
  if (sampling.top_k < 0) {
    return Refuse("top_k ", sampling.top_k, " is out of range; allowed: >= 0, where 0 is off");
  }
  return FirstError({
      InRange("temperature", sampling.temperature, 0.0f, kTemperatureMax),
      Above("top_p", sampling.top_p, 0, 1),
      InRange("min_p", sampling.min_p, 0.0f, 1.0f),
      Above("repetition_penalty", sampling.repetition_penalty, 0, kRepetitionPenaltyMax),
      InRange("presence_penalty", sampling.presence_penalty, -count_max, count_max),
      InRange("frequency_penalty", sampling.frequency_penalty, -count_max, count_max),
      CheckLogitBias(model, sampling),
      InRange("logprobs", sampling.logprobs, -1, kLogprobsMax),
  });
}

absl::Status CheckStop(const ModelGeometry& model, const Request& request) {
  const StopRule& stop = request.stop;
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (stop.max_tokens < 0) {
    return Refuse("max_tokens ", stop.max_tokens, " is out of range; allowed: >= 0");
  }
  const int64_t excess = prompt + stop.max_tokens - model.block_size;
  if (excess > 0) {
    return Refuse("prompt (", prompt, " tokens) plus max_tokens (", stop.max_tokens,
                  ") exceeds the context of ", model.block_size, " by ", excess,
                  "; lower max_tokens to ", stop.max_tokens - excess);
  }
  if (auto s = InRange("min_tokens", stop.min_tokens, 0, stop.max_tokens); !s.ok()) return s;
  if (stop.stop_ids.size() > kStopIdsMax) {
    return Refuse("stop_token_ids has ", stop.stop_ids.size(), " ids; allowed: at most ",
                  kStopIdsMax);
  }
  for (const TokenId id : stop.stop_ids) {
    if (auto s = CheckToken(model, "stop_token_ids", id); !s.ok()) return s;
  }
  const std::unordered_set<TokenId> distinct(stop.stop_ids.begin(), stop.stop_ids.end());
  if (stop.min_tokens > 0 && distinct.size() >= model.vocab_size) {
    return Refuse("stop_token_ids names the whole vocabulary, which leaves nothing to draw for ",
                  "min_tokens ", stop.min_tokens);
  }
  return absl::OkStatus();
}

// Refuses what could not run even alone, with the numbers.
absl::Status CheckFits(const ModelGeometry& model, const EngineOptions& options,
                       const Request& request) {
  if (FitsAlone(model, request, options.kv_pages).has_value()) return absl::OkStatus();
  const Budget& budget = request.budget;
  const std::vector<int32_t> allowed = AllowedChunkSizes(model, budget);
  const size_t tokens = request.prompt.size();
  const auto prompt = static_cast<int32_t>(tokens);
  int64_t pages = INT64_MAX;
  int64_t pages_to_read = INT64_MAX;  // the prompt alone, at a size that could go on to the end
  int32_t chunk_size = 0;
  for (const int32_t size : allowed) {
    const int64_t needed = PagesPerChoice(model, request, size) * request.choices;
    if (needed < pages) pages = needed, chunk_size = size;
    if (needed > options.kv_pages) continue;
    pages_to_read =
        std::min(pages_to_read, PagesBetween(model, size, prompt, prompt) * request.choices);
  }
  const std::string at = model.compresses() ? absl::StrCat(" at chunk_size ", chunk_size) : "";
  if (pages <= options.kv_pages) {
    return Refuse("auto.kv_bytes_max ", budget.kv_bytes_max, " is less than the ",
                  pages_to_read * kPageEntries * model.bytes_per_entry,
                  " bytes that reading the prompt (", tokens, " tokens) with n ", request.choices,
                  " takes; raise it, or allow other chunk sizes");
  }
  const std::string what =
      request.task == Task::kScore
          ? absl::StrCat("text (", tokens, " tokens)")
          : absl::StrCat("prompt (", tokens, " tokens) plus max_tokens (", request.stop.max_tokens,
                         ") with n ", request.choices);
  return Refuse(what, " needs ", pages, " pages of KV memory", at, ", more than the ",
                options.kv_pages, " there are; ask for less");
}

}  // namespace

absl::Status ValidateOptions(const ModelGeometry& model, const EngineOptions& options) {
  if (options.slots < 1) return Refuse("slots ", options.slots, " must be 1 or more");
  if (options.queue_requests_max < 1) {
    return Refuse("queue_requests_max ", options.queue_requests_max, " must be 1 or more");
  }
  if (options.kv_pages < 1) return Refuse("kv_pages ", options.kv_pages, " must be 1 or more");
  // Every stream may go on, one chunk close and one prefill advance in each step.
  const double chunk_work = LeastWork(model, options.compressor_token_rows);
  const double least_work = options.slots + 2 * chunk_work;
  if (options.step_tokens_max < least_work) {
    return Refuse("step_tokens_max ", options.step_tokens_max, " must be ",
                  static_cast<int64_t>(std::ceil(least_work)), " or more for ", options.slots,
                  " slots");
  }
  // Every running sequence may need two rows, and one prefill must be able to go on beside them.
  const int32_t chunk = model.compresses() ? model.chunk_sizes.back() : 1;
  const int64_t least = 2 * int64_t{options.slots} + 2 * int64_t{chunk} + 2;
  if (options.step_rows_max < least) {
    return Refuse("step_rows_max ", options.step_rows_max, " must be ", least, " or more for ",
                  options.slots, " slots and chunks of ", chunk, " tokens");
  }
  return absl::OkStatus();
}

absl::Status ValidateRequest(const ModelGeometry& model, const EngineOptions& options,
                             const Request& request) {
  const bool score = request.task == Task::kScore;
  const int32_t choices_max = score ? 1 : std::min(kChoicesMax, options.slots);
  if (request.time_limit <= absl::ZeroDuration()) {
    return Refuse("time_limit_ms ", absl::ToInt64Milliseconds(request.time_limit),
                  " is out of range; allowed: > 0");
  }
  absl::Status checks = FirstError({
      CheckPrompt(model, request),
      CheckBudget(model, request.budget),
      CheckSampling(model, request.sampling),
      score ? absl::OkStatus() : CheckStop(model, request),
      InRange("n", request.choices, 1, choices_max),
      InRange("priority", request.priority, -kPriorityMax, kPriorityMax),
  });
  return checks.ok() ? CheckFits(model, options, request) : checks;
}

absl::Status ComeBack(const std::string& why, absl::Duration retry_after) {
  const int64_t milliseconds = absl::ToInt64Milliseconds(retry_after);
  absl::Status status =
      absl::ResourceExhaustedError(absl::StrCat(why, "; try again in ", milliseconds, " ms"));
  status.SetPayload(kRetryAfterPayload, absl::Cord(absl::StrCat(milliseconds)));
  return status;
}

absl::Status QueueFull(int32_t requests_max, int32_t waiting, absl::Duration retry_after) {
  return ComeBack(absl::StrCat("the queue is full: ", waiting,
                               " requests wait (queue_requests_max ", requests_max, ")"),
                  retry_after);
}

absl::Status Hopeless(const QueueAhead& ahead, absl::Duration left) {
  const absl::Duration retry =
      std::clamp(ahead.wait - left, DrainRate::kRetryLeast, DrainRate::kRetryMost);
  return ComeBack(
      absl::StrCat("the deadline is too near for the queue: ", absl::ToInt64Milliseconds(left),
                   " ms are left, and ", ahead.work, " tokens of the ", ahead.requests,
                   " requests that wait take an estimated ", absl::ToInt64Milliseconds(ahead.wait),
                   " ms before it; allow more time"),
      retry);
}

std::optional<absl::Duration> RetryAfter(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kRetryAfterPayload);
  int64_t milliseconds = 0;
  if (!payload || !absl::SimpleAtoi(std::string(*payload), &milliseconds)) return std::nullopt;
  return absl::Milliseconds(milliseconds);
}

}  // namespace catserve

#include "server/request_reader.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "engine/admission.h"
#include "server/quality.h"

namespace catserve {
namespace {

template <typename... Parts>
absl::Status Refuse(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

uint64_t DrawWord() {
  thread_local std::random_device device;
  return uint64_t{device()} << 32 | device();
}

absl::StatusOr<std::string> ReadId(bool given, const std::string& id) {
  if (!given) return absl::StrFormat("r-%016x", DrawWord());
  if (absl::Status status = CheckRequestId(id); !status.ok()) return status;
  return id;
}

// Refuses a text that cannot fit whatever its tokens are, before time goes into tokenising it.
absl::Status CheckTextBytes(const std::string& text, absl::string_view field,
                            const ServedModel& model) {
  const int64_t context = model.description.geometry.block_size;
  const auto bytes = static_cast<int64_t>(text.size());
  if (model.token_bytes_max == 0 || bytes <= context * model.token_bytes_max) {
    return absl::OkStatus();
  }
  return Refuse(field, " has ", bytes, " bytes, at least ", bytes / model.token_bytes_max,
                " tokens: more than the context of ", context, "; shorten it");
}

absl::StatusOr<std::vector<TokenId>> ReadPrompt(const v1::Prompt& prompt, absl::string_view field,
                                                const ServedModel& model) {
  switch (prompt.input_case()) {
    case v1::Prompt::kTokenIds:
      return std::vector<TokenId>(prompt.token_ids().ids().begin(), prompt.token_ids().ids().end());
    case v1::Prompt::kText: {
      if (auto s = CheckTextBytes(prompt.text(), field, model); !s.ok()) return s;
      absl::StatusOr<std::vector<TokenId>> ids = EncodeText(
          prompt.text(), !prompt.has_add_bos() || prompt.add_bos(), prompt.parse_special(), model);
      if (ids.ok() || !absl::IsInvalidArgument(ids.status())) return ids;
      return Refuse(field, ".text: ", ids.status().message());
    }
    case v1::Prompt::INPUT_NOT_SET: break;
  }
  return Refuse(field, " is missing: set ", field, ".text or ", field, ".token_ids");
}

absl::StatusOr<Budget> ReadBudget(const v1::Budget& message, const ServedModel& model) {
  Budget budget;
  switch (message.choice_case()) {
    case v1::Budget::CHOICE_NOT_SET:
      if (model.default_budget.choice_case() == v1::Budget::CHOICE_NOT_SET) return budget;
      return ReadBudget(model.default_budget, model);
    case v1::Budget::kChunkSize: budget.chunk_size = message.chunk_size(); return budget;
    case v1::Budget::kAuto: break;
  }
  const ModelGeometry& geometry = model.description.geometry;
  const v1::AutoBudget& bounds = message.auto_();
  budget.automatic = true;
  if (!geometry.compresses()) return budget;  // admission refuses it
  budget.chunk_size_min = geometry.chunk_sizes.front();
  budget.chunk_size_max = geometry.chunk_sizes.back();
  // The engine takes 0 for "no bound"; a client that says 0 means 0.
  if (bounds.has_chunk_size_min()) budget.chunk_size_min = bounds.chunk_size_min();
  if (bounds.has_chunk_size_max()) budget.chunk_size_max = bounds.chunk_size_max();
  if (bounds.has_kv_bytes_max()) budget.kv_bytes_max = bounds.kv_bytes_max();
  const std::string offered = absl::StrJoin(geometry.chunk_sizes, ", ");
  for (const auto& [name, size] :
       {std::pair("min", budget.chunk_size_min), std::pair("max", budget.chunk_size_max)}) {
    if (size == 0) {
      return Refuse("auto.chunk_size_", name, " 0 is not offered; this model offers ", offered);
    }
  }
  if (bounds.has_kv_bytes_max() && budget.kv_bytes_max <= 0) {
    return Refuse("auto.kv_bytes_max ", budget.kv_bytes_max, " is out of range; allowed: > 0");
  }
  if (absl::Status status = ReadQuality(bounds, model, budget); !status.ok()) return status;
  return budget;
}

SamplingParams ReadSampling(const v1::Sampling& message) {
  SamplingParams params;
  if (message.has_temperature()) params.temperature = message.temperature();
  if (message.has_top_k()) params.top_k = message.top_k();
  if (message.has_top_p()) params.top_p = message.top_p();
  if (message.has_min_p()) params.min_p = message.min_p();
  if (message.has_repetition_penalty()) params.repetition_penalty = message.repetition_penalty();
  if (message.has_presence_penalty()) params.presence_penalty = message.presence_penalty();
  if (message.has_frequency_penalty()) params.frequency_penalty = message.frequency_penalty();
  for (const v1::LogitBias& bias : message.logit_bias()) {
    params.logit_bias.emplace_back(bias.token_id(), bias.bias());
  }
  params.seed = message.has_seed() ? message.seed() : DrawWord();
  return params;
}

absl::Status CheckStopStrings(const v1::Stopping& message, const ServedModel& model) {
  if (message.stop_size() > kStopStringsMax) {
    return Refuse("stop has ", message.stop_size(), " strings; allowed: at most ", kStopStringsMax);
  }
  for (const std::string& stop : message.stop()) {
    if (stop.empty() || stop.size() > kStopStringBytesMax) {
      return Refuse("stop has a string of ", stop.size(), " bytes; allowed: 1 to ",
                    kStopStringBytesMax);
    }
  }
  if (message.stop_token_ids_size() > kStopTokenIdsMax) {
    return Refuse("stop_token_ids has ", message.stop_token_ids_size(), " ids; allowed: at most ",
                  kStopTokenIdsMax);
  }
  return message.stop().empty() ? absl::OkStatus() : RequireTokenizer(model).status();
}

StopRule ReadStopping(const v1::Stopping& message, int64_t prompt_tokens,
                      const ServedModel& model) {
  StopRule rule;
  const int64_t room = model.description.geometry.block_size - prompt_tokens;
  rule.max_tokens = message.has_max_tokens()
                        ? message.max_tokens()
                        : static_cast<int32_t>(std::clamp<int64_t>(room, 0, kMaxTokensDefault));
  rule.min_tokens = message.min_tokens();
  rule.stop_ids.assign(message.stop_token_ids().begin(), message.stop_token_ids().end());
  const int32_t eos = model.tokenizer == nullptr ? -1 : model.tokenizer->info().eos_id;
  if (!message.ignore_eos() && eos >= 0) rule.stop_ids.push_back(eos);
  return rule;
}

}  // namespace

absl::Status CheckRequestId(const std::string& id) {
  const bool good = !id.empty() && id.size() <= kRequestIdBytesMax &&
                    std::all_of(id.begin(), id.end(), [](char c) {
                      return absl::ascii_isalnum(c) ||
                             absl::string_view("._:-").find(c) != absl::string_view::npos;
                    });
  if (good) return absl::OkStatus();
  return Refuse("request_id must be 1 to ", kRequestIdBytesMax, " characters of [A-Za-z0-9._:-]");
}

absl::StatusOr<std::vector<TokenId>> EncodeText(const std::string& text, bool add_bos,
                                                bool parse_special, const ServedModel& model) {
  const absl::StatusOr<const Tokenizer*> tokenizer = RequireTokenizer(model);
  if (!tokenizer.ok()) return tokenizer.status();
  absl::StatusOr<std::vector<TokenId>> ids = (*tokenizer)->Encode(text, parse_special);
  const int32_t bos = (*tokenizer)->info().bos_id;
  if (ids.ok() && add_bos && bos >= 0) ids->insert(ids->begin(), bos);
  return ids;
}

absl::StatusOr<ReadRequest> ReadGenerate(const v1::GenerateRequest& message,
                                         const ServedModel& model) {
  ReadRequest read;
  absl::StatusOr<std::string> id = ReadId(message.has_request_id(), message.request_id());
  if (!id.ok()) return id.status();
  read.id = *std::move(id);
  if (message.cache_salt().size() > kCacheSaltBytesMax) {
    return Refuse("cache_salt has ", message.cache_salt().size(), " bytes; allowed: at most ",
                  kCacheSaltBytesMax);
  }
  // Cheap checks first: tokenising is the dearest.
  if (auto status = CheckStopStrings(message.stopping(), model); !status.ok()) return status;
  absl::StatusOr<Budget> budget = ReadBudget(message.budget(), model);
  if (!budget.ok()) return budget.status();
  absl::StatusOr<std::vector<TokenId>> prompt = ReadPrompt(message.prompt(), "prompt", model);
  if (!prompt.ok()) return prompt.status();

  Request& request = read.request;
  request.task = Task::kGenerate;
  request.prompt = *std::move(prompt);
  request.budget = *budget;
  request.sampling = ReadSampling(message.sampling());
  if (message.has_logprobs()) request.sampling.logprobs = message.logprobs();
  request.stop =
      ReadStopping(message.stopping(), static_cast<int64_t>(request.prompt.size()), model);
  if (message.sampling().has_n()) request.choices = message.sampling().n();
  request.priority = message.priority();
  request.cache_salt = message.cache_salt();
  request.bypass_prefix_cache = message.bypass_prefix_cache();
  if (message.has_time_limit_ms()) request.time_limit = absl::Milliseconds(message.time_limit_ms());
  read.text.stops.assign(message.stopping().stop().begin(), message.stopping().stop().end());
  read.text.include_stop = message.stopping().include_stop();
  return read;
}

absl::StatusOr<ReadRequest> ReadScore(const v1::ScoreRequest& message, const ServedModel& model) {
  ReadRequest read;
  absl::StatusOr<std::string> id = ReadId(message.has_request_id(), message.request_id());
  if (!id.ok()) return id.status();
  read.id = *std::move(id);
  const ModelGeometry& geometry = model.description.geometry;
  if (geometry.compresses() && !message.has_chunk_size()) {
    return Refuse("chunk_size is missing; this model offers ",
                  absl::StrJoin(geometry.chunk_sizes, ", "));
  }
  if (message.top_logprobs() < 0 || message.top_logprobs() > kLogprobsMax) {
    return Refuse("top_logprobs ", message.top_logprobs(), " is out of range; allowed: 0 to ",
                  kLogprobsMax);
  }
  absl::StatusOr<std::vector<TokenId>> text = ReadPrompt(message.text(), "text", model);
  if (!text.ok()) return text.status();
  read.request.task = Task::kScore;
  read.request.prompt = *std::move(text);
  read.request.budget.chunk_size = message.chunk_size();
  read.request.sampling.logprobs = message.top_logprobs();
  return read;
}

}  // namespace catserve

#include "server/generate_reply.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "server/usage.h"
#include "server/wire.h"

namespace catserve {
namespace {

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStopToken: return v1::FINISH_REASON_STOP;
    case FinishReason::kLength: return v1::FINISH_REASON_LENGTH;
    case FinishReason::kTimeLimit: return v1::FINISH_REASON_TIME_LIMIT;
    case FinishReason::kCancelled: return v1::FINISH_REASON_ABORTED;
    case FinishReason::kKvLimit: return v1::FINISH_REASON_KV_LIMIT;
    case FinishReason::kDeadline:
    case FinishReason::kFailed: break;  // the call ends with a status instead
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

}  // namespace

void FillTokenInfo(const SampleResult& result, v1::TokenInfo& info) {
  info.set_token_id(result.token.id);
  info.set_logprob(result.token.logprob);
  for (const TokenLogprob& likely : result.top) {
    v1::TokenLogprob& top = *info.add_top();
    top.set_token_id(likely.id);
    top.set_logprob(likely.logprob);
  }
}

GenerateReply::GenerateReply(const ServedModel& model, Metrics& metrics, Options options)
    : model_(model), metrics_(metrics), options_(std::move(options)) {}

GenerateReply::Choice& GenerateReply::ChoiceAt(int32_t index) {
  const auto [it, is_new] = choices_.try_emplace(index);
  if (is_new && model_.tokenizer != nullptr) {
    it->second.text.emplace(model_.tokenizer.get(), options_.text);
  }
  return it->second;
}

void GenerateReply::Add(const Event& event) {
  if (const auto* started = std::get_if<StartedEvent>(&event)) AddStarted(*started);
  if (const auto* tokens = std::get_if<TokensEvent>(&event)) AddTokens(*tokens);
  if (const auto* end = std::get_if<ChoiceEndEvent>(&event)) EndChoice(*end);
  if (const auto* change = std::get_if<BudgetChangedEvent>(&event)) {
    FillBudgetChanged(*change, *messages_.emplace_back().mutable_budget_changed());
  }
}

void GenerateReply::AddStarted(const StartedEvent& event) {
  v1::Started& started = *messages_.emplace_back().mutable_started();
  started.set_request_id(options_.request_id);
  started.set_prompt_tokens(event.prompt_tokens);
  started.set_cached_tokens(event.cached_tokens);
  started.set_chunk_size(event.chunk_size);
  started.set_seed(options_.seed);
}

void GenerateReply::AddTokens(const TokensEvent& event) {
  for (const SampleResult& token : event.tokens) AddToken(event.choice, token);
}

void GenerateReply::AddToken(int32_t index, const SampleResult& token) {
  Choice& choice = ChoiceAt(index);
  if (choice.ended) return;  // drawn before the engine learnt of the stop string
  v1::Tokens& message = OpenTokens(index);
  message.add_token_ids(token.token.id);
  ++tokens_;
  if (options_.logprobs) FillTokenInfo(token, *message.add_info());
  choice.last_token = token.token.id;
  const bool may_stop = choice.tokens >= options_.min_tokens;
  ++choice.tokens;
  if (!choice.text.has_value()) return;
  const bool is_stop_id = std::find(options_.stop_ids.begin(), options_.stop_ids.end(),
                                    token.token.id) != options_.stop_ids.end();
  if (is_stop_id && !options_.text.include_stop) return;
  const TextStream::Output output = choice.text->Push(token.token.id, may_stop);
  message.mutable_text()->append(output.text);
  if (output.matched < 0) return;
  stopped_.push_back(index);
  metrics_.CountChoiceEnd(FinishReason::kStopToken);
  AddChoiceFinished(index, v1::FINISH_REASON_STOP, output.matched);
}

void GenerateReply::EndChoice(const ChoiceEndEvent& event) {
  Choice& choice = ChoiceAt(event.choice);
  if (choice.ended) return;  // the answer to our own EndChoice
  TextStream::Output rest;
  if (choice.text.has_value()) rest = choice.text->Flush();
  if (!rest.text.empty()) OpenTokens(event.choice).mutable_text()->append(rest.text);
  const FinishReason reason = rest.matched >= 0 ? FinishReason::kStopToken : event.reason;
  metrics_.CountChoiceEnd(reason);
  AddChoiceFinished(event.choice, ToProto(reason), rest.matched);
}

void GenerateReply::AddChoiceFinished(int32_t index, v1::FinishReason reason, int stop_string) {
  Choice& choice = ChoiceAt(index);
  choice.ended = true;
  last_reason_ = reason;
  v1::ChoiceFinished& finished = *messages_.emplace_back().mutable_choice_finished();
  finished.set_choice_index(index);
  finished.set_reason(reason);
  finished.set_generated_tokens(choice.tokens);
  if (stop_string >= 0) {
    finished.set_stop(options_.text.stops[stop_string]);
  } else if (reason == v1::FINISH_REASON_STOP) {
    finished.set_stop_token_id(choice.last_token);
  }
}

v1::Tokens& GenerateReply::OpenTokens(int32_t index) {
  for (auto message = messages_.rbegin(); message != messages_.rend(); ++message) {
    if (message->has_budget_changed()) break;  // what follows a change is told after it
    if (!message->has_tokens() || message->tokens().choice_index() != index) continue;
    if (message->tokens().token_ids_size() >= kMessageTokensMax) break;
    return *message->mutable_tokens();
  }
  v1::Tokens& tokens = *messages_.emplace_back().mutable_tokens();
  tokens.set_choice_index(index);
  return tokens;
}

grpc::Status GenerateReply::Finish(const FinishedEvent& event, bool left) {
  grpc::Status status = EndStatus(event.reason, left);
  if (!status.ok()) return status;
  std::vector<int32_t> generated;
  for (const auto& [index, choice] : choices_) generated.push_back(choice.tokens);
  v1::Finished& finished = *messages_.emplace_back().mutable_finished();
  const bool choices_ended = last_reason_ != v1::FINISH_REASON_UNSPECIFIED;
  finished.set_reason(choices_ended ? last_reason_ : ToProto(event.reason));
  *finished.mutable_usage() = catserve::ToProto(event.usage, model_, generated);
  return grpc::Status::OK;
}

grpc::ByteBuffer GenerateReply::Pop() {
  const grpc::ByteBuffer bytes = SerializeBytes(messages_.front());
  tokens_ -= messages_.front().tokens().token_ids_size();
  messages_.pop_front();
  return bytes;
}

std::vector<int32_t> GenerateReply::TakeStoppedChoices() { return std::exchange(stopped_, {}); }

}  // namespace catserve

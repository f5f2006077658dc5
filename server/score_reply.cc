#include "server/score_reply.h"

#include <variant>

#include "server/generate_reply.h"
#include "server/usage.h"
#include "server/wire.h"

namespace catserve {

void ScoreReply::Add(const Event& event) {
  if (const auto* started = std::get_if<StartedEvent>(&event)) AddStarted(*started);
  if (const auto* scores = std::get_if<ScoresEvent>(&event)) AddScores(*scores);
}

void ScoreReply::AddStarted(const StartedEvent& event) {
  v1::Started& started = *messages_.emplace_back().mutable_started();
  started.set_request_id(request_id_);
  started.set_prompt_tokens(event.prompt_tokens);
  started.set_cached_tokens(event.cached_tokens);
  started.set_chunk_size(event.chunk_size);
}

void ScoreReply::AddScores(const ScoresEvent& event) {
  int32_t position = event.first;
  for (const SampleResult& score : event.scores) {
    FillTokenInfo(score, *OpenScores(position++).add_tokens());
    ++scored_tokens_;
    sum_logprob_ += score.token.logprob;
    const Tokenizer* tokenizer = model_.tokenizer.get();
    if (tokenizer != nullptr && !tokenizer->IsSpecial(score.token.id)) {
      scored_bytes_ += static_cast<int64_t>(tokenizer->TokenBytes(score.token.id).size());
    }
  }
}

v1::ScoreTokens& ScoreReply::OpenScores(int32_t position) {
  if (!messages_.empty() && messages_.back().has_scores()) {
    v1::ScoreTokens& last = *messages_.back().mutable_scores();
    const bool follows = last.first_position() + last.tokens_size() == position;
    if (follows && last.tokens_size() < kMessageTokensMax) return last;
  }
  v1::ScoreTokens& scores = *messages_.emplace_back().mutable_scores();
  scores.set_first_position(position);
  return scores;
}

grpc::Status ScoreReply::Finish(const FinishedEvent& event, bool left) {
  grpc::Status status = EndStatus(event.reason, left);
  if (!status.ok()) return status;
  if (event.reason == FinishReason::kCancelled) {
    return grpc::Status(grpc::StatusCode::ABORTED, "ended by Abort or by the server's drain limit");
  }
  v1::ScoreFinished& finished = *messages_.emplace_back().mutable_finished();
  finished.set_scored_tokens(scored_tokens_);
  finished.set_sum_logprob(sum_logprob_);
  finished.set_scored_bytes(scored_bytes_);
  *finished.mutable_usage() = ToProto(event.usage, model_, {});
  return grpc::Status::OK;
}

grpc::ByteBuffer ScoreReply::Pop() {
  const grpc::ByteBuffer bytes = SerializeBytes(messages_.front());
  messages_.pop_front();
  return bytes;
}

}  // namespace catserve

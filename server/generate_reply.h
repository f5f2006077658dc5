// Generate's stream: ids become text, stop strings end choices.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "catserve/v1/generation.pb.h"
#include "engine/text/text_stream.h"
#include "server/metrics.h"
#include "server/reply.h"
#include "server/served_model.h"

namespace catserve {

class GenerateReply : public Reply {
 public:
  struct Options {
    std::string request_id;
    uint64_t seed = 0;
    bool logprobs = false;          // tell each token's (and what came with it)
    std::vector<TokenId> stop_ids;  // a choice that drew one of these ends with it
    int32_t min_tokens = 0;         // no stop string before
    TextStream::Options text;
  };

  // REQUIRES: model and metrics outlive this object. Without a tokenizer there is no text, and
  // options.text.stops is empty.
  GenerateReply(const ServedModel& model, Metrics& metrics, Options options);

  void Add(const Event& event) override;
  grpc::Status Finish(const FinishedEvent& event, bool left) override;
  bool empty() const override { return messages_.empty(); }
  int32_t tokens() const override { return tokens_; }
  grpc::ByteBuffer Pop() override;
  std::vector<int32_t> TakeStoppedChoices() override;

 private:
  struct Choice {
    std::optional<TextStream> text;
    int32_t tokens = 0;  // delivered
    TokenId last_token = -1;
    bool ended = false;
  };

  Choice& ChoiceAt(int32_t index);
  void AddStarted(const StartedEvent& event);
  void AddTokens(const TokensEvent& event);
  void AddToken(int32_t index, const SampleResult& token);
  void EndChoice(const ChoiceEndEvent& event);
  void AddChoiceFinished(int32_t index, v1::FinishReason reason, int stop_string);

  // The message that tokens of this choice go to: one that is not written yet and has room, or new.
  v1::Tokens& OpenTokens(int32_t index);

  const ServedModel& model_;
  Metrics& metrics_;
  const Options options_;
  std::map<int32_t, Choice> choices_;  // those that the engine spoke of
  std::vector<int32_t> stopped_;
  std::deque<v1::GenerateResponse> messages_;
  int32_t tokens_ = 0;  // in messages_
  v1::FinishReason last_reason_ = v1::FINISH_REASON_UNSPECIFIED;
};

// One token's id, log-probability and likeliest alternatives.
void FillTokenInfo(const SampleResult& result, v1::TokenInfo& info);

}  // namespace catserve

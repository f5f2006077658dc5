// Score's stream: blocks of log-probabilities in order, then their sum.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "catserve/v1/generation.pb.h"
#include "server/reply.h"
#include "server/served_model.h"

namespace catserve {

class ScoreReply : public Reply {
 public:
  // REQUIRES: model outlives this object.
  ScoreReply(const ServedModel& model, std::string request_id)
      : model_(model), request_id_(std::move(request_id)) {}

  void Add(const Event& event) override;
  grpc::Status Finish(const FinishedEvent& event, bool left) override;
  bool empty() const override { return messages_.empty(); }
  int32_t tokens() const override { return 0; }  // bounded by the text that was sent: never paused
  grpc::ByteBuffer Pop() override;
  std::vector<int32_t> TakeStoppedChoices() override { return {}; }

 private:
  void AddStarted(const StartedEvent& event);
  void AddScores(const ScoresEvent& event);
  v1::ScoreTokens& OpenScores(int32_t position);

  const ServedModel& model_;
  const std::string request_id_;
  std::deque<v1::ScoreResponse> messages_;
  int32_t scored_tokens_ = 0;
  double sum_logprob_ = 0;
  int64_t scored_bytes_ = 0;
};

}  // namespace catserve

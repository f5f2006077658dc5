#include "server/request_meter.h"

#include <variant>

namespace catserve {

void RequestMeter::Observe(const TimedEvent& timed) {
  if (const auto* tokens = std::get_if<TokensEvent>(&timed.event)) {
    ObserveTokens(*tokens, timed.at);
  } else if (const auto* finished = std::get_if<FinishedEvent>(&timed.event)) {
    metrics_.CountUsage(finished->usage);
  }
}

void RequestMeter::ObserveTokens(const TokensEvent& tokens, absl::Time at) {
  if (tokens.tokens.empty()) return;
  if (!first_token_seen_) {
    first_token_seen_ = true;
    metrics_.ObserveTimeToFirstToken(at - received_);
  }
  const auto [last, first_of_choice] = last_token_.emplace(tokens.choice, at);
  if (!first_of_choice) {
    const auto count = static_cast<double>(tokens.tokens.size());
    for (size_t i = 0; i < tokens.tokens.size(); ++i) {
      metrics_.ObserveInterToken((at - last->second) / count);
    }
    last->second = at;
  }
}

}  // namespace catserve

#include "bench/serve_load/call.h"

#include <utility>

namespace catserve {

void LoadCall::Start(v1::Generation::Stub& stub, const v1::GenerateRequest& request) {
  stub.async()->Generate(&context_, &request, this);
  if (record_.shot.slow) AddHold();  // reads start from the alarm's thread too
  StartRead(&response_);
  StartCall();
}

void LoadCall::Cut() {
  cut_ = true;
  context_.TryCancel();
}

void LoadCall::GiveUpIfSilent(double patience) {
  if (!silent_ || gave_up_ || setup_.watch->Seconds() - arrival_ <= patience) return;
  gave_up_ = true;
  context_.TryCancel();
}

void LoadCall::OnReadDone(bool ok) {
  if (!ok) {
    if (record_.shot.slow) RemoveHold();
    return;
  }
  Take(response_);
  ReadOn();
}

void LoadCall::ReadOn() {
  if (!record_.shot.slow || record_.cancelled) {
    StartRead(&response_);
    return;
  }
  const auto pause = std::chrono::duration<double, std::milli>(setup_.slow_pause_ms);
  pause_.Set(std::chrono::system_clock::now() +
                 std::chrono::duration_cast<std::chrono::system_clock::duration>(pause),
             [this](bool) { StartRead(&response_); });
}

void LoadCall::Take(const v1::GenerateResponse& response) {
  switch (response.event_case()) {
    case v1::GenerateResponse::kTokens: TakeTokens(response.tokens()); break;
    case v1::GenerateResponse::kStarted:
      record_.chunk_size_first = record_.chunk_size_last = response.started().chunk_size();
      record_.cached_tokens = response.started().cached_tokens();
      break;
    case v1::GenerateResponse::kBudgetChanged:
      ++record_.budget_changes;
      record_.chunk_size_last = response.budget_changed().to_chunk_size();
      break;
    case v1::GenerateResponse::kFinished:
      record_.reason = response.finished().reason();
      record_.kv_bytes_peak = response.finished().usage().kv_bytes_peak();
      record_.queued_seconds = response.finished().usage().queued_seconds();
      break;
    default: break;
  }
}

void LoadCall::TakeTokens(const v1::Tokens& tokens) {
  if (tokens.token_ids_size() == 0) return;  // text that was held back
  silent_ = false;
  const double now = setup_.watch->Seconds();
  record_.token_times.insert(record_.token_times.end(), tokens.token_ids_size(), now);
  setup_.tokens->fetch_add(tokens.token_ids_size(), std::memory_order_relaxed);
  const int32_t cancel_after = record_.shot.cancel_after;
  if (cancel_after > 0 && !record_.cancelled && record_.token_times.size() >= cancel_after) {
    record_.cancelled = true;
    context_.TryCancel();
  }
}

void LoadCall::OnDone(const grpc::Status& status) {
  record_.end = setup_.watch->Seconds();
  record_.code = status.error_code();
  record_.message = status.error_message();
  record_.cut = cut_ && !status.ok();
  record_.gave_up = gave_up_ && !status.ok();
  const auto on_end = std::move(setup_.on_end);  // outlives the call
  on_end(this);
}

v1::GenerateRequest MakeRequest(const Shot& shot, const std::vector<int32_t>& prompt,
                                double temperature, bool bypass_prefix_cache) {
  v1::GenerateRequest request;
  request.mutable_prompt()->mutable_token_ids()->mutable_ids()->Add(prompt.begin(), prompt.end());
  const BudgetChoice& budget = shot.budget;
  if (budget.kind == BudgetChoice::Kind::kFixed) {
    request.mutable_budget()->set_chunk_size(budget.chunk_size_min);
  } else if (budget.kind == BudgetChoice::Kind::kAuto) {
    v1::AutoBudget& range = *request.mutable_budget()->mutable_auto_();
    if (budget.chunk_size_min > 0) range.set_chunk_size_min(budget.chunk_size_min);
    if (budget.chunk_size_max > 0) range.set_chunk_size_max(budget.chunk_size_max);
  }
  request.mutable_sampling()->set_temperature(static_cast<float>(temperature));
  request.mutable_sampling()->set_seed(shot.seed);
  request.mutable_stopping()->set_max_tokens(shot.lengths.generated);
  request.mutable_stopping()->set_ignore_eos(true);  // lengths are exact
  if (bypass_prefix_cache) request.set_bypass_prefix_cache(true);
  return request;
}

}  // namespace catserve

#include "engine/schedule/scheduler.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace catserve {
namespace {

int64_t WorkDone(const RequestState& request) {
  int64_t work = request.prompt_tokens();
  for (const ChoiceState& choice : request.choices) work += choice.reported;
  return work;
}

}  // namespace

Scheduler::Scheduler(ModelGeometry model, ScheduleLimits limits)
    : model_(std::move(model)),
      limits_(std::move(limits)),
      quality_(limits_.quality),
      pool_(limits_.kv_pages),
      cache_(pool_) {
  for (int32_t slot = limits_.slots - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

void Scheduler::Add(RequestKey key, Request request, absl::Time now) {
  auto state = std::make_shared<RequestState>();
  state->key = key;
  state->choices.resize(request.choices);
  state->request = std::move(request);
  state->arrived = now;
  state->work = LargestWork(state->request);
  state->turn = now + state->request.priority * kAgeingPerLevel;
  CATSERVE_CHECK(by_key_.emplace(key, state).second)
      << "request key " << key << " is in use; keys are given once";
  waiting_.Insert(state);
  // Only who is first in line can start: behind others, a new one changes nothing.
  if (waiting_.FirstNotPaused() == state) room_changed_ = true;
}

void Scheduler::SetPaused(RequestKey key, bool paused) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  found->second->paused = paused;
  room_changed_ = true;
}

int32_t Scheduler::paused() const {
  return static_cast<int32_t>(std::count_if(by_key_.begin(), by_key_.end(),
                                            [](const auto& r) { return r.second->paused; }));
}

TokensHeld Scheduler::tokens_held() const {
  TokensHeld held;
  for (const RequestPtr& request : running_) {
    for (const ChoiceState& choice : request->choices) {
      int64_t tokens = 0;
      if (choice.score) tokens = choice.score->next_position();
      if (choice.sequence) tokens = choice.sequence->TokensRead();
      held.tokens += tokens;
      held.dense_pages += PagesFor(tokens);
    }
  }
  return held;
}

RequestKey Scheduler::OwnerOf(int32_t slot) const {
  for (const RequestPtr& request : running_) {
    for (const ChoiceState& choice : request->choices) {
      if (choice.slot == slot) return request->key;
    }
  }
  return 0;
}

absl::Time Scheduler::NextLimit() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [key, request] : by_key_) next = std::min(next, request->Limit());
  return next;
}

std::vector<Report> Scheduler::TakeReports() { return std::exchange(reports_, {}); }

std::vector<RequestKey> Scheduler::TakeLeftQueue() { return std::exchange(left_queue_, {}); }

// -- Results and ends -----------------------------------------------------------------------------

std::vector<Report> Scheduler::Commit(const StepResult& result, absl::Time now) {
  CATSERVE_CHECK(!in_flight_.empty()) << "a result came without a step; commit each step once";
  const InFlight expected = std::move(in_flight_.front());
  in_flight_.pop_front();
  int64_t scores = 0;
  for (const Expected& e : expected.scores) scores += e.score_count;
  CATSERVE_CHECK(result.samples.size() == expected.samples.size() &&
                 std::ssize(result.scores) == scores)
      << "the executor returned " << result.samples.size() << " samples and "
      << result.scores.size() << " scores for " << expected.samples.size() << " and " << scores;
  ShareTime(expected.compressed, absl::FromChrono(result.times.compress));
  for (size_t i = 0; i < expected.samples.size(); ++i) {
    ReceiveSample(expected.samples[i], result.samples[i], now);
  }
  auto next = result.scores.begin();
  for (const Expected& e : expected.scores) {
    ReceiveScores(e, {next, next + e.score_count}, now);
    next += e.score_count;
  }
  for (const Expected& e : expected.prefills) {
    if (e.request->choices[e.choice].ended) continue;
    if (!e.request->answered) e.request->answered = now;
    EndChoiceOf(*e.request, e.choice, FinishReason::kLength, now);
  }
  return TakeReports();
}

void Scheduler::ShareTime(const std::vector<Compressed>& shares, absl::Duration spent) {
  int64_t all = 0;
  for (const Compressed& share : shares) all += share.tokens;
  for (const Compressed& share : shares) share.request->compressing += spent * share.tokens / all;
}

void Scheduler::ReceiveSample(const Expected& expected, const SampleResult& sample,
                              absl::Time now) {
  RequestState& request = *expected.request;
  ChoiceState& choice = request.choices[expected.choice];
  if (choice.ended) return;  // it ended while this step was in flight
  if (!request.answered) request.answered = now;
  ++choice.reported;
  choice.tokens.push_back(sample.token.id);
  reports_.push_back({request.key, TokensEvent{.choice = expected.choice, .tokens = {sample}}});
  const StopRule& stop = request.request.stop;
  if (std::find(stop.stop_ids.begin(), stop.stop_ids.end(), sample.token.id) !=
      stop.stop_ids.end()) {
    EndChoiceOf(request, expected.choice, FinishReason::kStopToken, now);
  } else if (choice.reported == stop.max_tokens) {
    EndChoiceOf(request, expected.choice, FinishReason::kLength, now);
  }
}

void Scheduler::ReceiveScores(const Expected& expected, std::vector<SampleResult> scores,
                              absl::Time now) {
  RequestState& request = *expected.request;
  ChoiceState& choice = request.choices[0];
  if (choice.ended) return;
  const int32_t next = expected.score_first + expected.score_count;
  const int32_t first = std::max(expected.score_first, choice.scored_to);
  if (first >= next) return;  // reported before it was preempted
  scores.erase(scores.begin(), scores.begin() + (first - expected.score_first));
  choice.scored_to = next;
  reports_.push_back({request.key, ScoresEvent{.first = first, .scores = std::move(scores)}});
  if (next == request.prompt_tokens()) EndChoiceOf(request, 0, FinishReason::kLength, now);
}

void Scheduler::EndChoice(RequestKey key, int32_t choice, absl::Time now) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  const RequestPtr request = found->second;
  if (choice < 0 || choice >= std::ssize(request->choices)) return;
  const ChoiceState& state = request->choices[choice];
  if (state.ended || (state.slot < 0 && state.drawn == 0)) return;
  EndChoiceOf(*request, choice, FinishReason::kStopToken, now);
}

void Scheduler::EndOverdue(absl::Time now) {
  std::vector<RequestPtr> overdue;
  const auto is_overdue = [now](const RequestPtr& request) { return request->Limit() <= now; };
  std::copy_if(running_.begin(), running_.end(), std::back_inserter(overdue), is_overdue);
  const std::vector<RequestPtr> waiting = waiting_.All();
  std::copy_if(waiting.begin(), waiting.end(), std::back_inserter(overdue), is_overdue);
  for (const RequestPtr& request : overdue) {
    const bool deadline =
        request->request.deadline <= request->arrived + request->request.time_limit;
    End(request->key, deadline ? FinishReason::kDeadline : FinishReason::kTimeLimit, now);
  }
}

void Scheduler::CancelAll(FinishReason reason, absl::Time now) {
  std::vector<RequestPtr> all(running_.begin(), running_.end());
  const std::vector<RequestPtr> waiting = waiting_.All();
  all.insert(all.end(), waiting.begin(), waiting.end());
  for (const RequestPtr& request : all) End(request->key, reason, now);
}

void Scheduler::End(RequestKey key, FinishReason reason, absl::Time now) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  const RequestPtr request = found->second;  // Finish forgets it
  for (int32_t i = 0; i < std::ssize(request->choices); ++i) {
    if (!request->choices[i].ended) EndChoiceOf(*request, i, reason, now);
  }
}

void Scheduler::EndChoiceOf(RequestState& request, int32_t index, FinishReason reason,
                            absl::Time now) {
  ChoiceState& choice = request.choices[index];
  ReleaseSequence(request, choice);
  ReleaseSlot(choice);
  choice.ended = true;
  room_changed_ = true;
  if (reason == FinishReason::kStopToken || reason == FinishReason::kLength) {
    lengths_.Learn(choice.reported, request.request.stop.max_tokens);
  }
  if (request.generates()) {
    reports_.push_back({request.key, ChoiceEndEvent{.choice = index, .reason = reason}});
  }
  if (request.ended()) Finish(request, reason, now);
}

void Scheduler::Finish(RequestState& request, FinishReason reason, absl::Time now) {
  reports_.push_back(
      {request.key, FinishedEvent{.reason = reason, .usage = UsageOf(request, now)}});
  const RequestPtr self = by_key_.at(request.key);
  running_.erase(self);
  waiting_.Erase(self);
  if (request.started_at) {
    waiting_.Settle(request, WorkDone(request));
  } else {
    left_queue_.push_back(request.key);
  }
  by_key_.erase(self->key);
  if (!by_key_.empty()) return;
  waiting_.Forget();
  CATSERVE_CHECK(pool_.held() == 0 && std::ssize(free_slots_) == limits_.slots)
      << "no request is left, yet " << pool_.held() << " pages are used and " << free_slots_.size()
      << " slots free; some path does not give back";
}

Usage Scheduler::UsageOf(const RequestState& request, absl::Time now) const {
  const absl::Time started = request.started.value_or(now);
  const absl::Time answered = request.answered.value_or(now);
  Usage usage{.prompt_tokens = request.prompt_tokens(),
              .cached_tokens = request.cached_tokens,
              .chunk_size = request.chunk_size,
              .chunks_compressed = request.chunks_compressed,
              .kv_bytes_peak = request.pages_peak * kPageEntries * model_.bytes_per_entry,
              .prefill_pieces = request.prefill_pieces,
              .preemptions = request.preemptions,
              .budget_changes = request.budget_changes,
              .queued = started - request.arrived,
              .prefilling = answered - started,
              .decoding = now - answered,
              .compressing = request.compressing};
  for (const ChoiceState& choice : request.choices) usage.generated_tokens += choice.reported;
  return usage;
}

}  // namespace catserve

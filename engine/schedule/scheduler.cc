#include "engine/schedule/scheduler.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace catserve {

Scheduler::Scheduler(ModelGeometry model, ScheduleLimits limits)
    : model_(std::move(model)), limits_(limits), pool_(limits.kv_pages) {
  for (int32_t slot = limits.slots - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

void Scheduler::Add(RequestKey key, Request request, absl::Time now) {
  auto state = std::make_shared<RequestState>();
  state->key = key;
  state->choices.resize(request.choices);
  state->request = std::move(request);
  state->arrived = now;
  CATSERVE_CHECK(by_key_.emplace(key, state).second)
      << "request key " << key << " is in use; keys are given once";
  waiting_.push_back(std::move(state));
}

absl::Time Scheduler::NextLimit() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [key, request] : by_key_) next = std::min(next, request->Limit());
  return next;
}

std::vector<Report> Scheduler::TakeReports() { return std::exchange(reports_, {}); }

// -- Planning -------------------------------------------------------------------------------------

StepPlan Scheduler::Plan(absl::Time now) {
  EndOverdue(now);
  StartWaiting();
  StepBuilder step(limits_.step_rows_max);
  InFlight expected;
  PlanDecodes(step, expected);
  PlanPrefills(step, expected, now);
  CloseStep();
  StepPlan plan = step.Take();
  if (plan.empty()) return plan;
  ++totals_.steps;
  totals_.rows += std::ssize(plan.rows);
  totals_.chunks_compressed += std::ssize(plan.compressions);
  in_flight_.push_back(std::move(expected));
  return plan;
}

void Scheduler::StartWaiting() {
  while (!waiting_.empty()) {
    const RequestPtr& first = waiting_.front();
    if (std::ssize(free_slots_) < first->request.choices) return;
    const auto grant = Choose(model_, first->request, pool_.total() - pages_reserved_);
    if (!grant) return;  // those behind it wait too, so that it comes to its turn
    Start(*first, *grant);
    running_.push_back(first);
    waiting_.pop_front();
  }
}

void Scheduler::Start(RequestState& request, const Grant& grant) {
  request.chunk_size = grant.chunk_size;
  const Layout layout(model_, grant.chunk_size);
  const int32_t tokens = request.prompt_tokens();
  for (ChoiceState& choice : request.choices) {
    choice.slot = free_slots_.back();
    free_slots_.pop_back();
    choice.pages_reserved = grant.pages_per_choice;
    pages_reserved_ += grant.pages_per_choice;
    if (request.request.task == Task::kScore) {
      const int32_t top_n = std::max(0, request.request.sampling.logprobs);
      choice.score.emplace(layout, choice.slot, tokens, top_n, pool_);
    } else {
      choice.sequence.emplace(layout, choice.slot, pool_).Extend(tokens);
    }
  }
}

// What does not fit waits for the next step. Nobody waits for long: a chunk of C tokens closes once
// in C steps, and the options leave room for more than every slot's share of that.
void Scheduler::PlanDecodes(StepBuilder& step, InFlight& expected) {
  for (const RequestPtr& request : running_) {
    for (int32_t i = 0; i < std::ssize(request->choices); ++i) {
      const ChoiceState& choice = request->choices[i];
      const bool more = choice.drawn < request->request.stop.max_tokens;
      if (choice.sequence && choice.drawn > 0 && more) PlanRows(request, i, step, expected);
    }
  }
}

void Scheduler::PlanPrefills(StepBuilder& step, InFlight& expected, absl::Time now) {
  pages_spare_ = pool_.total() - pages_reserved_;
  for (const RequestPtr& request : running_) {
    for (int32_t i = 0; i < std::ssize(request->choices); ++i) {
      ChoiceState& choice = request->choices[i];
      if (choice.ended || choice.drawn > 0) continue;
      if (step.rows_left() == 0) return;
      Begin(*request, choice, step, now);
      if (choice.score && !choice.score->complete()) PlanScore(request, step, expected);
      if (choice.sequence && !choice.sequence->complete()) PlanRows(request, i, step, expected);
    }
  }
}

void Scheduler::Begin(RequestState& request, ChoiceState& choice, StepBuilder& step,
                      absl::Time now) {
  if (choice.prompt_written) return;
  choice.prompt_written = true;
  step.WriteHistory(choice.slot, request.request.prompt);
  if (request.started) return;
  request.started = now;
  reports_.push_back({request.key, StartedEvent{.prompt_tokens = request.prompt_tokens(),
                                                .chunk_size = request.chunk_size}});
}

void Scheduler::PlanRows(const RequestPtr& request, int32_t index, StepBuilder& step,
                         InFlight& expected) {
  ChoiceState& choice = request->choices[index];
  const StopRule& stop = request->request.stop;
  const int64_t chunks_before = std::ssize(step.plan().compressions);
  Sequence& sequence = *choice.sequence;
  if (sequence.complete()) sequence.Extend(request->prompt_tokens() + choice.drawn);
  const FilledRows filled = sequence.Fill(step);
  if (filled.count == 0) return;
  request->chunks_compressed += std::ssize(step.plan().compressions) - chunks_before;
  if (!sequence.complete()) return;
  if (stop.max_tokens == 0) {
    expected.prefills.push_back({.request = request, .choice = index});
    return;
  }
  Sample sample{.row = filled.last_row(),
                .slot = choice.slot,
                .position = sequence.tokens(),
                .prompt_tokens = request->prompt_tokens(),
                .choice = index,
                .params = &request->request.sampling};
  if (choice.drawn < stop.min_tokens) sample.forbidden = stop.stop_ids;
  step.AddSample(sample);
  expected.samples.push_back({.request = request, .choice = index});
  ++choice.drawn;
}

void Scheduler::PlanScore(const RequestPtr& request, StepBuilder& step, InFlight& expected) {
  ChoiceState& choice = request->choices[0];
  ScoreSequence& score = *choice.score;
  const Layout layout(model_, request->chunk_size);
  const int64_t own = ScoreSequence::BranchPages(layout, request->prompt_tokens());
  const int64_t chunks_before = std::ssize(step.plan().compressions);
  const int32_t first = score.next_position();
  const int32_t count = score.Fill(step, own + pages_spare_);
  if (count == 0) return;
  pages_spare_ -= std::max<int64_t>(0, score.branch_pages() - own);
  request->chunks_compressed += std::ssize(step.plan().compressions) - chunks_before;
  expected.scores.push_back({.request = request, .score_first = first, .score_count = count});
}

void Scheduler::CloseStep() {
  for (const RequestPtr& request : running_) {
    int64_t pages = 0;
    for (ChoiceState& choice : request->choices) {
      pages += choice.pages();
      if (choice.score) choice.score->ReleaseBranches();
    }
    request->pages_peak = std::max(request->pages_peak, pages);
  }
}

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

void Scheduler::ReceiveSample(const Expected& expected, const SampleResult& sample,
                              absl::Time now) {
  RequestState& request = *expected.request;
  ChoiceState& choice = request.choices[expected.choice];
  if (choice.ended) return;  // it ended while this step was in flight
  if (!request.answered) request.answered = now;
  ++choice.reported;
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
  if (request.choices[0].ended) return;
  const int32_t next = expected.score_first + expected.score_count;
  reports_.push_back(
      {request.key, ScoresEvent{.first = expected.score_first, .scores = std::move(scores)}});
  if (next == request.prompt_tokens()) EndChoiceOf(request, 0, FinishReason::kLength, now);
}

void Scheduler::EndChoice(RequestKey key, int32_t choice, absl::Time now) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  const RequestPtr request = found->second;
  if (choice < 0 || choice >= std::ssize(request->choices)) return;
  if (request->choices[choice].slot < 0) return;  // ended, or nothing of it has been seen yet
  EndChoiceOf(*request, choice, FinishReason::kStopToken, now);
}

void Scheduler::EndOverdue(absl::Time now) {
  std::vector<RequestPtr> overdue;
  const auto is_overdue = [now](const RequestPtr& request) { return request->Limit() <= now; };
  std::copy_if(running_.begin(), running_.end(), std::back_inserter(overdue), is_overdue);
  std::copy_if(waiting_.begin(), waiting_.end(), std::back_inserter(overdue), is_overdue);
  for (const RequestPtr& request : overdue) {
    const bool deadline =
        request->request.deadline <= request->arrived + request->request.time_limit;
    End(request->key, deadline ? FinishReason::kDeadline : FinishReason::kTimeLimit, now);
  }
}

void Scheduler::CancelAll(FinishReason reason, absl::Time now) {
  std::vector<RequestPtr> all(running_);
  all.insert(all.end(), waiting_.begin(), waiting_.end());
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
  choice.ended = true;
  choice.sequence.reset();
  choice.score.reset();
  if (choice.slot >= 0) free_slots_.push_back(choice.slot);
  choice.slot = -1;
  pages_reserved_ -= std::exchange(choice.pages_reserved, 0);
  if (request.request.task == Task::kGenerate) {
    reports_.push_back({request.key, ChoiceEndEvent{.choice = index, .reason = reason}});
  }
  if (request.ended()) Finish(request, reason, now);
}

void Scheduler::Finish(RequestState& request, FinishReason reason, absl::Time now) {
  reports_.push_back(
      {request.key, FinishedEvent{.reason = reason, .usage = UsageOf(request, now)}});
  const auto is_it = [&request](const RequestPtr& other) { return other.get() == &request; };
  std::erase_if(running_, is_it);
  std::erase_if(waiting_, is_it);
  by_key_.erase(request.key);
  if (!by_key_.empty()) return;
  CATSERVE_CHECK(pool_.AllFree() && pages_reserved_ == 0 &&
                 std::ssize(free_slots_) == limits_.slots)
      << "no request is left, yet " << pool_.used() << " pages are used, " << pages_reserved_
      << " reserved and " << free_slots_.size() << " slots free; some path does not give back";
}

Usage Scheduler::UsageOf(const RequestState& request, absl::Time now) const {
  const absl::Time started = request.started.value_or(now);
  const absl::Time answered = request.answered.value_or(now);
  Usage usage{.prompt_tokens = request.prompt_tokens(),
              .chunk_size = request.chunk_size,
              .chunks_compressed = request.chunks_compressed,
              .kv_bytes_peak = request.pages_peak * kPageEntries * model_.bytes_per_entry,
              .queued = started - request.arrived,
              .prefilling = answered - started,
              .decoding = now - answered};
  for (const ChoiceState& choice : request.choices) usage.generated_tokens += choice.reported;
  return usage;
}

}  // namespace catserve

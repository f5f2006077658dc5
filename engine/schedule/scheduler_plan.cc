// Which rows the running requests get in a step.
#include <algorithm>
#include <utility>

#include "engine/schedule/scheduler.h"
#include "kernels/check.h"

namespace catserve {
namespace {

// Work that a step may spend beside each stream's own row: on chunks that close, and on prefills
// (which get what the closings leave, but never less than lets the first of them go on). More, and
// prompts are read faster but a stream's tokens come unevenly; less, and weights are read for too
// few rows.
constexpr double kClosingsPerStream = 3;
constexpr double kPrefillPerStream = 2;
constexpr double kLeastPiece = 16;

// A prompt goes on by single entries, a text to score by whole blocks.
double LeastPrefill(const RequestState& first, double least_work, double summary_work) {
  return first.generates() ? std::max(kLeastPiece, summary_work) : least_work;
}

}  // namespace

double LeastWork(const ModelGeometry& model, double compressor_token_rows) {
  const int32_t chunk = model.compresses() ? model.chunk_sizes.back() : 1;
  return std::max(kLeastPiece, chunk + 2 + chunk * compressor_token_rows);
}

StepPlan Scheduler::Plan(absl::Time now) {
  EndOverdue(now);
  KeepBounds(now);
  if (RelievePressure()) StartWaiting();
  RefineOne();
  StepBuilder step(
      {.rows_max = limits_.step_rows_max, .compressor_token_rows = limits_.compressor_token_rows});
  InFlight expected;
  const int32_t streams = PlanStreams(step, expected);
  PlanPrefills(step, expected, streams, now);
  CloseStep();
  StepPlan plan = step.Take();
  if (plan.empty()) {
    CATSERVE_CHECK(!in_flight_.empty() || by_key_.size() == static_cast<size_t>(paused()))
        << "nothing can run though " << running() << " requests run and " << waiting()
        << " wait; some bound leaves no room for any of them";
    return plan;
  }
  ++totals_.steps;
  totals_.rows += std::ssize(plan.rows);
  totals_.chunks_compressed += std::ssize(plan.compressions);
  in_flight_.push_back(std::move(expected));
  return plan;
}

int32_t Scheduler::PlanStreams(StepBuilder& step, InFlight& expected) {
  struct Closing {
    RequestPtr request;
    int32_t index = 0;
    int32_t waited = 0;
  };
  std::vector<Closing> closings;
  int32_t streams = 0;
  step.Allow(limits_.step_tokens_max);
  for (const RequestPtr& request : running_) {
    if (!request->Streams()) continue;
    for (int32_t i = 0; i < std::ssize(request->choices); ++i) {
      const ChoiceState& choice = request->choices[i];
      if (!choice.sequence || choice.prefilling || !request->Draws(choice)) continue;
      ++streams;
      const Sequence& sequence = *choice.sequence;
      const Layout& layout = sequence.layout();
      const bool closes = !sequence.complete() || layout.Chunks(request->TokensToRead(choice)) >
                                                      layout.Chunks(sequence.tokens());
      if (closes) {
        closings.push_back({request, i, choice.waited});
      } else {
        PlanRows(request, i, step, expected);
      }
    }
  }
  std::stable_sort(closings.begin(), closings.end(),
                   [](const Closing& a, const Closing& b) { return a.waited > b.waited; });
  const double least = LeastWork(model_, limits_.compressor_token_rows);
  step.Allow(std::min(step.work_left() - least, std::max(least, kClosingsPerStream * streams)));
  for (const Closing& closing : closings) {
    const bool planned = PlanRows(closing.request, closing.index, step, expected);
    int32_t& waited = closing.request->choices[closing.index].waited;
    waited = planned ? 0 : waited + 1;
  }
  return streams;
}

void Scheduler::PlanPrefills(StepBuilder& step, InFlight& expected, int32_t streams,
                             absl::Time now) {
  const std::vector<RequestPtr> in_turn = PrefillsInTurn();
  if (in_turn.empty()) return;
  double work = limits_.step_tokens_max - step.work();
  if (streams > 0) {
    const RequestState& first = *in_turn.front();
    const double least = LeastPrefill(first, LeastWork(model_, limits_.compressor_token_rows),
                                      step.SummaryWork(first.chunk_size));
    const double closings = step.work() - streams;
    work = std::min(work, std::max(least, kPrefillPerStream * streams - closings));
  }
  step.Allow(work);
  for (const RequestPtr& request : in_turn) {
    for (int32_t i = 0; i < std::ssize(request->choices); ++i) {
      if (step.work_left() < 1 || step.rows_left() == 0) return;
      ChoiceState& choice = request->choices[i];
      if (choice.score && !choice.score->complete()) {
        Begin(*request, choice, step, now);
        PlanScore(request, step, expected);
      } else if (choice.sequence && choice.prefilling && MayPrefill(*request, choice)) {
        Begin(*request, choice, step, now);
        PlanRows(request, i, step, expected);
      }
    }
  }
}

// Those with something to prefill or to score: the first in turn of each owner, then the second of
// each, and so on. Nobody's backlog stands before another's prompt.
std::vector<RequestPtr> Scheduler::PrefillsInTurn() const {
  std::map<std::string, int32_t> places;  // given to an owner so far
  std::vector<std::pair<int32_t, RequestPtr>> prefills;
  for (const RequestPtr& request : running_) {
    const auto reads = [](const ChoiceState& choice) {
      return choice.score ? !choice.score->complete() : choice.sequence && choice.prefilling;
    };
    if (request->paused || std::none_of(request->choices.begin(), request->choices.end(), reads)) {
      continue;
    }
    prefills.emplace_back(places[request->request.owner]++, request);
  }
  std::stable_sort(prefills.begin(), prefills.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<RequestPtr> in_turn;
  in_turn.reserve(prefills.size());
  for (auto& [place, request] : prefills) in_turn.push_back(std::move(request));
  return in_turn;
}

// Choices of one request find their prompt in the prefix cache: all but the first wait for it.
bool Scheduler::MayPrefill(const RequestState& request, const ChoiceState& choice) const {
  const ChoiceState& first = request.choices.front();
  const bool shares = !request.request.bypass_prefix_cache &&
                      choice.sequence->layout().ReusableUnits(request.prompt_tokens()) > 0;
  return !shares || &choice == &first || choice.looked_up || first.ended || first.prompt_kept;
}

void Scheduler::Begin(RequestState& request, ChoiceState& choice, StepBuilder& step,
                      absl::Time now) {
  if (!choice.history_written) {
    choice.history_written = true;
    step.WriteHistory(choice.slot, choice.tokens);
  }
  if (choice.sequence && !choice.looked_up) LookUp(request, choice, step);
  if (request.started) return;
  request.started = now;
  reports_.push_back({request.key, StartedEvent{.prompt_tokens = request.prompt_tokens(),
                                                .cached_tokens = request.cached_tokens,
                                                .chunk_size = request.chunk_size}});
}

void Scheduler::LookUp(RequestState& request, ChoiceState& choice, StepBuilder& step) {
  choice.looked_up = true;
  if (request.request.bypass_prefix_cache) return;
  const PrefixHit hit = FindPrefix(request, choice, request.chunk_size);
  choice.units_kept = choice.sequence->Reuse(hit, step);
  if (request.started) return;  // counted for the first choice's first time only
  request.cached_tokens = choice.units_kept * choice.sequence->layout().UnitTokens();
  totals_.prefix_query_tokens += request.prompt_tokens();
  totals_.prefix_hit_tokens += request.cached_tokens;
}

bool Scheduler::PlanRows(const RequestPtr& request, int32_t index, StepBuilder& step,
                         InFlight& expected) {
  ChoiceState& choice = request->choices[index];
  const StopRule& stop = request->request.stop;
  const int64_t chunks_before = std::ssize(step.plan().compressions);
  Sequence& sequence = *choice.sequence;
  if (sequence.complete()) sequence.Extend(request->TokensToRead(choice));
  const FilledRows filled = sequence.Fill(step);
  if (filled.count == 0) return false;
  CountChunks(request, std::ssize(step.plan().compressions) - chunks_before, expected);
  if (choice.prefilling) ++request->prefill_pieces;
  if (!sequence.complete()) return true;
  choice.prefilling = false;
  if (stop.max_tokens == 0) {
    expected.prefills.push_back({.request = request, .choice = index});
    return true;
  }
  if (choice.drawn == stop.max_tokens) return true;  // its last token is on its way
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
  return true;
}

void Scheduler::PlanScore(const RequestPtr& request, StepBuilder& step, InFlight& expected) {
  ChoiceState& choice = request->choices[0];
  ScoreSequence& score = *choice.score;
  const int64_t chunks_before = std::ssize(step.plan().compressions);
  const int32_t first = score.next_position();
  const int32_t count = score.Fill(step);
  if (count == 0) return;
  CountChunks(request, std::ssize(step.plan().compressions) - chunks_before, expected);
  ++request->prefill_pieces;
  expected.scores.push_back({.request = request, .score_first = first, .score_count = count});
}

void Scheduler::CountChunks(const RequestPtr& request, int64_t chunks, InFlight& expected) {
  if (chunks == 0) return;
  request->chunks_compressed += chunks;
  expected.compressed.push_back({request, chunks * request->chunk_size});
}

void Scheduler::CloseStep() {
  for (const RequestPtr& request : running_) {
    request->pages_peak = std::max(request->pages_peak, PagesOf(*request));
    for (ChoiceState& choice : request->choices) {
      if (choice.score) choice.score->ReleaseBranches();
      if (!choice.sequence || request->request.bypass_prefix_cache) continue;
      // When a page has sealed, and when a prefill is done: its last page, too, is worth finding.
      const int32_t first = choice.sequence->layout().FirstUnitEntry();
      const int32_t written = choice.sequence->UnitsWritten();
      const bool sealed =
          (first + written) / kPageEntries > (first + choice.units_kept) / kPageEntries;
      if (!sealed && (choice.prefilling || choice.prompt_kept)) continue;
      choice.prompt_kept = !choice.prefilling;
      KeepPrefix(*request, choice);
    }
  }
}

}  // namespace catserve

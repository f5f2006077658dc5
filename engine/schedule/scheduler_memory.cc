// Who holds memory, and at which chunk size.
#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/schedule/scheduler.h"
#include "kernels/check.h"

namespace catserve {
namespace {

// A request that waits has at most so many others coarsened at a time.
constexpr int kCoarsenedAtOnce = 16;

}  // namespace

// -- Starting -------------------------------------------------------------------------------------

void Scheduler::StartWaiting() {
  while (room_changed_) {
    const RequestPtr request = waiting_.FirstNotPaused();
    if (request == nullptr || request->in_flight()) return;  // its last tokens are to go on from
    const std::optional<int32_t> size = MakeRoomFor(*request);
    if (!size) {  // those behind it wait too, so that it comes to its turn
      room_changed_ = false;
      return;
    }
    Start(request, *size);
  }
}

void Scheduler::Start(const RequestPtr& request, int32_t chunk_size) {
  if (!request->started_at) left_queue_.push_back(request->key);
  waiting_.Start(request);
  running_.insert(request);
  request->changed_at = ResidentOf(*request).tokens;
  for (ChoiceState& choice : request->choices) {
    if (choice.ended) continue;
    if (choice.tokens.empty()) choice.tokens = request->request.prompt;
    choice.slot = free_slots_.back();
    free_slots_.pop_back();
  }
  if (request->started && request->chunk_size != chunk_size) {
    ChangeChunkSize(*request, chunk_size);
    return;
  }
  request->chunk_size = chunk_size;
  for (ChoiceState& choice : request->choices) {
    if (!choice.ended) NewSequence(*request, choice);
  }
}

void Scheduler::NewSequence(RequestState& request, ChoiceState& choice) {
  const Layout layout(model_, request.chunk_size);
  if (!request.generates()) {
    const int32_t top_n = std::max(0, request.request.sampling.logprobs);
    choice.score.emplace(layout, choice.slot, request.prompt_tokens(), top_n, pool_);
    return;
  }
  choice.sequence.emplace(layout, choice.slot, pool_).Extend(request.TokensToRead(choice));
  choice.looked_up = false;
  choice.prefilling = true;
  choice.prompt_kept = false;
  choice.units_kept = 0;
}

PrefixHit Scheduler::FindPrefix(const RequestState& request, const ChoiceState& choice,
                                int32_t chunk_size) const {
  if (request.request.bypass_prefix_cache || !request.generates()) return {};
  const Layout layout(model_, chunk_size);
  const auto& tokens = choice.tokens.empty() ? request.request.prompt : choice.tokens;
  const int32_t units = std::min(layout.ReusableUnits(request.TokensToRead(choice)),
                                 layout.Units(static_cast<int32_t>(tokens.size())));
  return cache_.Find({chunk_size, request.request.cache_salt}, layout, tokens, units);
}

// -- Pressure -------------------------------------------------------------------------------------

std::optional<int32_t> Scheduler::MakeRoomFor(const RequestState& request) {
  const auto has_slots = [&] { return std::ssize(free_slots_) >= request.live_choices(); };
  Changes changes;
  std::optional<int32_t> size;
  if (has_slots()) size = FindRoom(request, changes);
  // Whose reader is behind gives way to who could run, but not for nothing.
  if (!size && !FitsWithoutPaused(request)) return std::nullopt;
  while (!size) {
    if (!PreemptPaused()) return std::nullopt;
    changes.clear();
    if (has_slots()) size = FindRoom(request, changes);
  }
  for (const RequestPtr& other : Line(running_)) {
    const auto change = changes.find(other.get());
    if (change != changes.end()) ChangeChunkSize(*other, change->second);
  }
  return size;
}

// Adds to `changes` what others have to bend.
std::optional<int32_t> Scheduler::FindRoom(const RequestState& request, Changes& changes) const {
  std::optional<int32_t> size = SizeThatFits(request, changes);
  if (size) return size;
  std::vector<RequestPtr> owners;
  std::vector<Resident> residents = Bendable(changes, owners);
  for (int i = 0; i < kCoarsenedAtOnce && !size; ++i) {
    const auto best = BestCoarsening(model_, quality_, residents, /*at_once=*/false);
    if (!best) return std::nullopt;
    changes[owners[best->resident].get()] = best->chunk_size;
    residents.erase(residents.begin() + static_cast<int64_t>(best->resident));
    owners.erase(owners.begin() + static_cast<int64_t>(best->resident));
    size = SizeThatFits(request, changes);
  }
  return size;
}

bool Scheduler::FitsWithoutPaused(const RequestState& request) const {
  Changes changes;
  int64_t slots = std::ssize(free_slots_);
  for (const RequestPtr& other : running_) {
    if (!other->paused) continue;
    changes[other.get()] = kGone;
    slots += other->live_choices();
  }
  return !changes.empty() && slots >= request.live_choices() && FindRoom(request, changes);
}

std::vector<Resident> Scheduler::Bendable(const Changes& except,
                                          std::vector<RequestPtr>& owners) const {
  std::vector<Resident> residents;
  for (const RequestPtr& request : running_) {
    if (!request->request.budget.automatic || except.contains(request.get())) continue;
    residents.push_back(ResidentOf(*request));
    owners.push_back(request);
  }
  return residents;
}

bool Scheduler::RelievePressure() {
  bool calm = true;
  while (pool_.available() < PagesDemanded()) {
    if (CoarsenOne()) continue;
    if (!PreemptPaused() && !PreemptLast()) break;
    calm = false;
  }
  return calm;
}

// Pages that the next rows of all streams need, and the first prefill for the whole of its own.
int64_t Scheduler::PagesDemanded() const {
  int64_t pages = 0;
  bool prefill_counted = false;
  for (const RequestPtr& request : running_) {
    if (request->paused) continue;
    for (const ChoiceState& choice : request->choices) {
      const bool streams = choice.sequence && !choice.prefilling;
      if (streams && request->Draws(choice) && request->Streams()) {
        pages += choice.sequence->PagesMissing(request->TokensToRead(choice));
      }
      if (streams || choice.ended || prefill_counted) continue;
      prefill_counted = true;
      if (choice.score) {
        pages += choice.score->PagesMissing();
        continue;
      }
      pages += choice.sequence->PagesMissing(choice.sequence->tokens());
      if (choice.looked_up) continue;
      for (const PageId page : FindPrefix(*request, choice, request->chunk_size).pages) {
        pages -= pool_.holders(page) > 0 ? 1 : 0;
      }
    }
  }
  return pages;
}

bool Scheduler::CoarsenOne() {
  std::vector<RequestPtr> owners;
  const std::vector<Resident> residents = Bendable({}, owners);
  const auto best = BestCoarsening(model_, quality_, residents, /*at_once=*/true);
  if (best) ChangeChunkSize(*owners[best->resident], best->chunk_size);
  return best.has_value();
}

bool Scheduler::PreemptPaused() {
  const auto last = std::find_if(running_.rbegin(), running_.rend(),
                                 [](const RequestPtr& request) { return request->paused; });
  if (last == running_.rend()) return false;
  Preempt(std::prev(last.base()));
  return true;
}

// The last in turn of the owner with most requests running, but never the first of all: it always
// goes on.
bool Scheduler::PreemptLast() {
  if (running_.size() < 2) return false;
  std::map<std::string, int32_t> owners;
  for (const RequestPtr& request : running_) ++owners[request->request.owner];
  const auto fewer = [&owners](const RequestPtr& a, const RequestPtr& b) {
    return owners.at(a->request.owner) < owners.at(b->request.owner);
  };
  const auto last = std::max_element(running_.rbegin(), running_.rend(), fewer);
  Preempt(std::prev(last.base()));
  return true;
}

void Scheduler::Preempt(Line::iterator place) {
  RequestState& request = **place;
  for (ChoiceState& choice : request.choices) {
    ReleaseSequence(request, choice);
    ReleaseSlot(choice);
  }
  waiting_.Insert(*place);
  running_.erase(place);
  ++request.preemptions;
  ++totals_.preemptions;
  reports_.push_back({request.key, PreemptedEvent{}});
  room_changed_ = true;
}

// -- Budgets --------------------------------------------------------------------------------------

void Scheduler::KeepBounds(absl::Time now) {
  for (const RequestPtr& request : Line(running_)) {
    request->at_bound = false;
    if (request->request.budget.kv_bytes_max == 0 || request->paused) continue;
    int64_t growth = 0;
    for (const ChoiceState& choice : request->choices) {
      if (!choice.sequence || choice.prefilling || !request->Draws(choice)) continue;
      growth += choice.sequence->PagesMissing(request->TokensToRead(choice));
    }
    if (growth == 0 || KeepsBound(model_, request->request.budget, PagesOf(*request) + growth)) {
      continue;
    }
    const auto size = SizeWithinBound(model_, quality_, ResidentOf(*request));
    if (size) {
      ChangeChunkSize(*request, *size);
    } else if (request->in_flight()) {
      request->at_bound = true;
    } else {
      End(request->key, FinishReason::kKvLimit, now);
    }
  }
}

void Scheduler::RefineOne() {
  if (!waiting_.empty() ||
      static_cast<double>(pool_.held()) > kRefineBelow * static_cast<double>(pool_.total())) {
    return;
  }
  for (const RequestPtr& request : running_) {
    for (const ChoiceState& choice : request->choices) {
      if (choice.prefilling && !choice.ended) return;
    }
  }
  for (const RequestPtr& request : running_) {
    if (request->paused) continue;
    for (const int32_t size : Refinements(model_, quality_, ResidentOf(*request))) {
      const auto forecast = static_cast<double>(Forecast({}, {{request.get(), size}}));
      if (forecast > kRefineBelow * static_cast<double>(pool_.total())) continue;
      ChangeChunkSize(*request, size);
      return;
    }
  }
}

void Scheduler::ChangeChunkSize(RequestState& request, int32_t chunk_size) {
  const int32_t from = std::exchange(request.chunk_size, chunk_size);
  int32_t at_token = 0;
  for (ChoiceState& choice : request.choices) {
    if (choice.ended) continue;
    request.chunk_size = from;  // what it held is kept as what it was
    ReleaseSequence(request, choice);
    request.chunk_size = chunk_size;
    NewSequence(request, choice);
    at_token = std::max(at_token, request.TokensToRead(choice));
  }
  room_changed_ = true;
  if (!request.started) return;  // nobody has been told of the former one
  request.changed_at = at_token;
  const BudgetChangedEvent change{
      .from_chunk_size = from, .to_chunk_size = chunk_size, .at_token = at_token};
  request.budget_changes.push_back(change);
  reports_.push_back({request.key, change});
  ++(chunk_size > from ? totals_.budgets_coarsened : totals_.budgets_refined);
}

// -- Pages and slots ------------------------------------------------------------------------------

void Scheduler::KeepPrefix(RequestState& request, ChoiceState& choice) {
  Sequence& sequence = *choice.sequence;
  const Layout& layout = sequence.layout();
  const int32_t known = layout.Units(static_cast<int32_t>(choice.tokens.size()));
  const int32_t units = std::min(sequence.UnitsWritten(), known);
  if (request.request.bypass_prefix_cache || units <= choice.units_kept) return;
  choice.units_kept = units;
  cache_.Insert({layout.chunk_size(), request.request.cache_salt}, layout, choice.tokens, units,
                sequence.table());
}

void Scheduler::ReleaseSequence(RequestState& request, ChoiceState& choice) {
  if (choice.sequence) KeepPrefix(request, choice);
  choice.sequence.reset();
  choice.score.reset();
}

void Scheduler::ReleaseSlot(ChoiceState& choice) {
  if (choice.slot >= 0) free_slots_.push_back(choice.slot);
  choice.slot = -1;
  choice.history_written = false;
}

int64_t Scheduler::PagesOf(const RequestState& request) const {
  if (request.choices.size() == 1) {
    const ChoiceState& choice = request.choices.front();
    return choice.score ? choice.score->pages() : std::ssize(choice.pages());
  }
  std::set<PageId> distinct;
  for (const ChoiceState& choice : request.choices) {
    distinct.insert(choice.pages().begin(), choice.pages().end());
  }
  return std::ssize(distinct);
}

}  // namespace catserve

// What running and waiting requests are expected to hold.
#include <algorithm>
#include <utility>

#include "engine/schedule/scheduler.h"

namespace catserve {
namespace {

int64_t SealedPages(const Layout& layout, int32_t units) {
  return (layout.FirstUnitEntry() + units) / kPageEntries;
}

}  // namespace

int32_t Scheduler::ExpectedLength(const RequestState& request, const ChoiceState& choice) const {
  const int32_t most = request.request.stop.max_tokens;
  const bool outlived = request.preemptions > 0;  // its forecast once: it is not believed again
  const int32_t generated = outlived ? most : lengths_.Expect(choice.drawn, most);
  return std::max(request.TokensToRead(choice), request.prompt_tokens() + generated - 1);
}

void Scheduler::AddHoldings(const RequestState& request, int32_t chunk_size,
                            std::vector<Holding>& holdings) const {
  const Layout layout(model_, chunk_size);
  for (const ChoiceState& choice : request.choices) {
    if (choice.ended) continue;
    Holding& holding = holdings.emplace_back(Holding{.chunk_size = chunk_size});
    holding.stays = request.paused || !request.generates();
    if (!request.generates()) {
      holding.extra_pages = PagesPerChoice(model_, request.request, chunk_size) -
                            PagesBetween(model_, chunk_size, 0, 0);
      continue;
    }
    holding.tokens = request.TokensToRead(choice);
    holding.end = ExpectedLength(request, choice);
    if (choice.sequence && choice.looked_up && chunk_size == request.chunk_size) {
      holding.shareable.assign(choice.pages().begin(), choice.pages().end());
      continue;
    }
    holding.shareable = FindPrefix(request, choice, chunk_size).pages;
    if (&choice == &request.choices.front() || request.request.bypass_prefix_cache) continue;
    // It will find what the first choice keeps of the prompt.
    const int64_t found = std::ssize(holding.shareable);
    const int64_t prompt = SealedPages(layout, layout.Units(request.prompt_tokens()));
    holding.extra_pages = std::min<int64_t>(0, found - prompt);
  }
}

int64_t Scheduler::Forecast(std::vector<Holding> added, const Changes& changes) const {
  std::vector<Holding> holdings = std::move(added);
  for (const RequestPtr& request : running_) {
    const auto change = changes.find(request.get());
    const int32_t size = change == changes.end() ? request->chunk_size : change->second;
    if (size != kGone) AddHoldings(*request, size, holdings);
  }
  return ForecastPages(model_, std::move(holdings), pool_.total());
}

Resident Scheduler::ResidentOf(const RequestState& request) const {
  Resident resident{.budget = &request.request.budget,
                    .chunk_size = request.chunk_size,
                    .choices = request.live_choices()};
  std::vector<PageId> held;
  for (const ChoiceState& choice : request.choices) {
    if (choice.ended) continue;
    resident.tokens = std::max(resident.tokens, request.TokensToRead(choice));
    resident.end = std::max(resident.end, ExpectedLength(request, choice));
    held.insert(held.end(), choice.pages().begin(), choice.pages().end());
  }
  // A page that several of its own choices hold is freed with it, too, but once.
  if (resident.choices > 1) std::sort(held.begin(), held.end());
  for (auto page = held.begin(); page != held.end();) {
    const auto next = std::find_if(page, held.end(), [page](PageId p) { return p != *page; });
    const bool alone = pool_.holders(*page) == next - page;
    resident.pages_owned += alone ? 1 : 0;
    resident.pages_shared += next - page - (alone ? 1 : 0);
    page = next;
  }
  resident.tokens_since_change = resident.tokens - request.changed_at;
  if (!request.paused) resident.tokens_left = LargestLength(request.request) - resident.tokens;
  return resident;
}

// What those who wait behind the first in line would hold, each at its smallest.
std::vector<Holding> Scheduler::Crowd(const RequestState& first) const {
  std::vector<Holding> crowd;
  WaitingLine::Walk walk = waiting_.InOrder();
  while (const RequestPtr other = walk.Next()) {
    if (other->paused || other.get() == &first) continue;
    if (std::ssize(crowd) >= limits_.slots) break;  // more could not run at once
    AddHoldings(*other, SmallestSize(model_, ResidentOf(*other)), crowd);
  }
  return crowd;
}

std::optional<int32_t> Scheduler::SizeThatFits(const RequestState& request,
                                               const Changes& changes) const {
  const Resident resident = ResidentOf(request);
  const std::vector<Holding> crowd = Crowd(request);
  std::optional<int32_t> smallest;
  for (const int32_t size : StartSizes(model_, quality_, resident)) {
    std::vector<Holding> holdings;
    AddHoldings(request, size, holdings);
    if (Forecast(holdings, changes) > pool_.total()) continue;
    if (!smallest || PagesAtEnd(model_, resident, size) < PagesAtEnd(model_, resident, *smallest)) {
      smallest = size;
    }
    if (crowd.empty()) return size;
    holdings.insert(holdings.end(), crowd.begin(), crowd.end());
    if (Forecast(std::move(holdings), changes) <= pool_.total()) return size;
  }
  return smallest;  // those behind it wait whatever it takes: it takes little
}

}  // namespace catserve

#include "tests/schedule/narrator.h"

#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kernels/check.h"

namespace catserve {
namespace {

std::string Count(int64_t count, const std::string& what, const std::string& plural) {
  return absl::StrCat(count, " ", count == 1 ? what : plural);
}
std::string Count(int64_t count, const std::string& what) { return Count(count, what, what + "s"); }

std::string Name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStopToken: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kTimeLimit: return "time limit";
    case FinishReason::kCancelled: return "cancelled";
    case FinishReason::kDeadline: return "deadline";
    case FinishReason::kKvLimit: return "KV limit";
    case FinishReason::kFailed: return "failed";
  }
  return "?";
}

// "ends: length" of several: "end: length".
std::string Plural(const std::string& does) {
  const size_t end = does.find_first_of(" :");
  const std::string verb = does.substr(0, end);
  const std::string plural = verb == "has"    ? "have"
                             : verb == "goes" ? "go"
                                              : verb.substr(0, verb.size() - 1);
  return absl::StrCat(plural, end == std::string::npos ? "" : does.substr(end));
}

}  // namespace

Narrator::Narrator(const ModelGeometry& model, const ScheduleLimits& limits, Driver& driver)
    : model_(model), limits_(limits), driver_(driver), start_(driver.now) {
  driver.on_plan = [this](const StepPlan& plan) { OnPlan(plan); };
  driver.on_report = [this](const Report& report) { OnReport(report); };
}

void Narrator::Introduce(RequestKey key, const std::string& name, const Request& request) {
  actors_[key] = {.name = name, .scores = request.task == Task::kScore, .choices = request.choices};
}

std::set<RequestKey> Narrator::Owners() const {
  std::set<RequestKey> owners;
  for (int32_t slot = 0; slot < limits_.slots; ++slot) {
    if (const RequestKey key = driver_.scheduler.OwnerOf(slot); key != 0) owners.insert(key);
  }
  return owners;
}

void Narrator::OnPlan(const StepPlan& plan) {
  rows_ = Rows(plan);
  const std::set<RequestKey> before = std::exchange(owners_, Owners());
  for (const RequestKey key : before) {
    if (owners_.contains(key) || driver_.stories[key].finished) continue;
    actors_.at(key).lost = true;
    moves_.push_back({actors_.at(key).name, "loses its memory"});
    ++preemptions_;
  }
  for (const RequestKey key : owners_) {
    if (!std::exchange(actors_.at(key).lost, false)) continue;
    moves_.push_back({actors_.at(key).name, "has memory again"});
  }
  CATSERVE_CHECK(preemptions_ == driver_.scheduler.totals().preemptions)
      << "a request lost its memory and got some in one plan";
}

std::string Narrator::Rows(const StepPlan& plan) {
  if (plan.empty()) return "nothing to run";
  std::vector<RequestKey> order;
  std::map<RequestKey, int32_t> rows;
  std::set<RequestKey> results;
  for (const RowRun& run : plan.runs) {
    const RequestKey key = driver_.scheduler.OwnerOf(run.slot);
    if (rows[key] == 0) order.push_back(key);
    rows[key] += run.row_count;
    if (actors_.at(key).scores) results.insert(key);  // it tells what it scored
  }
  for (const Sample& sample : plan.samples) {
    results.insert(driver_.scheduler.OwnerOf(sample.slot));
  }
  int64_t compressor_tokens = 0;
  for (const Compression& c : plan.compressions) compressor_tokens += c.chunk_size;
  std::string text = Count(std::ssize(plan.rows), "row");
  if (compressor_tokens > 0)
    absl::StrAppend(&text, ", ", Count(std::ssize(plan.compressions), "chunk"));
  if (!plan.page_copies.empty()) {
    absl::StrAppend(&text, ", ", Count(std::ssize(plan.page_copies), "page"), " copied");
  }
  if (limits_.compressor_token_rows > 0) {
    const double work = static_cast<double>(compressor_tokens) * limits_.compressor_token_rows;
    absl::StrAppendFormat(&text, ", work %.4g", static_cast<double>(std::ssize(plan.rows)) + work);
  }
  const auto part = [&](std::string* out, RequestKey key) {
    absl::StrAppend(out, actors_.at(key).name, " ", rows[key], results.contains(key) ? "" : "..");
  };
  return absl::StrCat(text, ": ", absl::StrJoin(order, ", ", part));
}

void Narrator::OnReport(const Report& report) {
  const Actor& actor = actors_.at(report.key);
  if (const auto* started = std::get_if<StartedEvent>(&report.event)) {
    std::string does = "starts";
    if (model_.compresses()) absl::StrAppend(&does, " at C=", started->chunk_size);
    if (started->cached_tokens > 0) {
      absl::StrAppend(&does, ", ", started->cached_tokens, " of ", started->prompt_tokens,
                      " tokens cached");
    }
    events_.push_back({actor.name, does});
  } else if (const auto* change = std::get_if<BudgetChangedEvent>(&report.event)) {
    events_.push_back({actor.name, absl::StrCat("goes from C=", change->from_chunk_size,
                                                " to C=", change->to_chunk_size, " at token ",
                                                change->at_token)});
  } else if (const auto* end = std::get_if<ChoiceEndEvent>(&report.event)) {
    if (actor.choices == 1) return;
    const auto tokens = std::ssize(driver_.stories[report.key].tokens[end->choice]);
    events_.push_back({absl::StrCat(actor.name, "/", end->choice),
                       absl::StrCat("ends: ", Name(end->reason), ", ", Count(tokens, "token"))});
  } else if (const auto* scores = std::get_if<ScoresEvent>(&report.event)) {
    events_.push_back({actor.name, absl::StrCat("has scores of tokens ", scores->first, " to ",
                                                scores->first + std::ssize(scores->scores) - 1)});
  } else if (const auto* finished = std::get_if<FinishedEvent>(&report.event)) {
    events_.push_back({actor.name, Ends(actor, report.key, *finished)});
  }
}

std::string Narrator::Ends(const Actor& actor, RequestKey key, const FinishedEvent& event) const {
  std::string does = absl::StrCat("ends: ", Name(event.reason));
  if (!driver_.stories[key].started) return does + ", before its start";
  if (!actor.scores) absl::StrAppend(&does, ", ", Count(event.usage.generated_tokens, "token"));
  const int64_t pages = event.usage.kv_bytes_peak / (kPageEntries * model_.bytes_per_entry);
  return absl::StrCat(does, ", at most ", Count(pages, "page"));
}

void Narrator::Say(const std::string& text, bool rows) {
  const int64_t second = absl::ToInt64Seconds(driver_.now - start_);
  if (rows && !lines_.empty() && lines_.back().rows && lines_.back().text == text &&
      lines_.back().last + 1 == second) {
    lines_.back().last = second;
    return;
  }
  lines_.push_back({.first = second, .last = second, .text = text, .rows = rows});
}

// Who did the same, one after the other, shares a line.
void Narrator::SayAll(const std::vector<Deed>& deeds) {
  for (size_t first = 0, next = 0; first < deeds.size(); first = next) {
    std::vector<std::string> who;
    for (; next < deeds.size() && deeds[next].does == deeds[first].does; ++next) {
      who.push_back(deeds[next].who);
    }
    const std::string& does = deeds[first].does;
    Say(absl::StrCat(absl::StrJoin(who, ", "), " ", who.size() > 1 ? Plural(does) : does), false);
  }
}

void Narrator::EndMoment(bool rows) {
  if (rows) Say(rows_, true);
  SayAll(std::exchange(moves_, {}));
  SayAll(std::exchange(events_, {}));
}

std::vector<std::string> Narrator::TakeLines() {
  std::vector<std::string> told;
  for (const Line& line : std::exchange(lines_, {})) {
    const std::string when = line.first == line.last ? absl::StrCat(line.first)
                                                     : absl::StrCat(line.first, "-", line.last);
    told.push_back(absl::StrFormat("%-7s %s", when, line.text));
  }
  return told;
}

std::string Narrator::Describe(const std::set<RequestKey>& paused) {
  const std::set<RequestKey> owners = Owners();
  std::vector<std::string> run, wait;
  int32_t pauses = 0;
  for (const auto& [key, actor] : actors_) {
    if (driver_.stories[key].finished) continue;
    const bool pauses_now = paused.contains(key);
    pauses += pauses_now ? 1 : 0;
    (owners.contains(key) ? run : wait).push_back(actor.name + (pauses_now ? " (paused)" : ""));
  }
  Scheduler& scheduler = driver_.scheduler;
  CATSERVE_CHECK(std::ssize(run) == scheduler.running() &&
                 std::ssize(wait) == scheduler.waiting() && pauses == scheduler.paused())
      << "the scheduler counts " << scheduler.running() << " running, " << scheduler.waiting()
      << " waiting and " << scheduler.paused() << " paused requests; the story has others";
  const auto list = [](const std::string& what, const std::vector<std::string>& names) {
    return names.empty() ? "" : absl::StrCat("; ", what, " ", absl::StrJoin(names, ", "));
  };
  const PagePool& pool = scheduler.pool();
  return absl::StrCat(Count(pool.held(), "page"), " held, ", pool.idle(), " kept idle, ",
                      pool.free(), " free", list("running", run), list("waiting", wait));
}

}  // namespace catserve

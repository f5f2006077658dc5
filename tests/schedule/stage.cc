#include "tests/schedule/stage.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/admission.h"

namespace catserve {
namespace {

constexpr int kStepsMost = 10000;        // of one command
constexpr uint64_t kOwnTexts = 1000000;  // texts below have numbers in the scenario

absl::Status Wrong(const std::string& message) { return absl::InvalidArgumentError(message); }

}  // namespace

// -- Setting the scene ----------------------------------------------------------------------------

absl::StatusOr<std::vector<std::string>> Stage::Do(Command& command) {
  const std::string& verb = command.verb();
  const bool sets = verb == "model" || verb == "limits";
  if (sets && driver_) return Wrong(absl::StrCat("'", verb, "' must come before what happens"));
  absl::Status status;
  if (sets) {
    status = verb == "model" ? SetModel(command) : SetLimits(command);
  } else {
    status = driver_ ? absl::OkStatus() : Open();
    if (status.ok()) status = Play(command);
  }
  if (!status.ok()) return status;
  return std::exchange(lines_, {});
}

absl::Status Stage::SetModel(Command& command) {
  const std::string kind = command.Word("a kind: cat, fixed or dense");
  if (kind == "cat") {
    model_.kind = ModelKind::kCat;
  } else if (kind == "fixed") {
    model_.kind = ModelKind::kCatFixed;
    model_.chunk_sizes = {8};
  } else if (kind == "dense") {
    model_.kind = ModelKind::kDense;
    model_.chunk_sizes = {};
  } else {
    command.Fail(absl::StrCat("'", kind, "' is no model: cat, fixed or dense"));
  }
  model_.block_size = static_cast<int32_t>(command.Number("block", model_.block_size));
  if (const auto sizes = command.Text("sizes")) {
    model_.chunk_sizes.clear();
    for (const absl::string_view size : absl::StrSplit(*sizes, ',')) {
      model_.chunk_sizes.push_back(static_cast<int32_t>(command.ToNumber(size, "sizes")));
    }
  }
  return command.Finish();
}

absl::Status Stage::SetLimits(Command& command) {
  limits_.slots = static_cast<int32_t>(command.Number("slots", limits_.slots));
  limits_.kv_pages = command.Number("pages", limits_.kv_pages);
  limits_.step_tokens_max = static_cast<int32_t>(command.Number("tokens", limits_.step_tokens_max));
  limits_.step_rows_max = static_cast<int32_t>(command.Number("rows", limits_.step_rows_max));
  limits_.compressor_token_rows = command.Fraction("ratio", 0);
  const auto depth = static_cast<int>(command.Number("depth", 0));
  if (!depth_) depth_ = depth;
  if (const auto quality = command.Text("quality")) {
    for (const absl::string_view column : absl::StrSplit(*quality, '/')) {
      limits_.quality.push_back(ReadColumn(column, command));
    }
  }
  return command.Finish();
}

QualityColumn Stage::ReadColumn(absl::string_view text, Command& command) {
  QualityColumn column;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<std::string, std::string> loss = absl::StrSplit(part, ':');
    column[static_cast<int32_t>(command.ToNumber(loss.first, "quality"))] =
        command.ToFraction(loss.second, "quality");
  }
  return column;
}

absl::Status Stage::Open() {
  options_ = {.slots = limits_.slots,
              .kv_pages = limits_.kv_pages,
              .step_rows_max = limits_.step_rows_max,
              .step_tokens_max = limits_.step_tokens_max,
              .compressor_token_rows = limits_.compressor_token_rows};
  if (auto status = ValidateOptions(model_, options_); !status.ok()) return status;
  driver_.emplace(model_, limits_, depth_.value_or(0));
  narrator_.emplace(model_, limits_, *driver_);
  return absl::OkStatus();
}

// -- Who comes ------------------------------------------------------------------------------------

std::vector<TokenId> Stage::TextOf(uint64_t text, int64_t count) const {
  std::vector<TokenId> tokens(std::clamp<int64_t>(count, 0, model_.block_size + 1));
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<TokenId>(ReferenceRows::Mix(text, i) % model_.vocab_size);
  }
  return tokens;
}

std::vector<TokenId> Stage::ReadPrompt(const std::string& text, Command& command) {
  const uint64_t own = kOwnTexts + actors_.size();
  const std::vector<std::string> turn = absl::StrSplit(text, '+');
  if (turn.size() == 2) {
    const Actor* before = Find(turn[0], command);
    if (before == nullptr) return {};
    std::vector<TokenId> tokens = before->request.prompt;
    const std::vector<TokenId> answer = driver_->stories[before->key].ids();
    tokens.insert(tokens.end(), answer.begin(), answer.end());
    const std::vector<TokenId> more = TextOf(own, command.ToNumber(turn[1], "prompt"));
    tokens.insert(tokens.end(), more.begin(), more.end());
    return tokens;
  }
  const std::vector<std::string> part = absl::StrSplit(text, '@');
  const int64_t count = command.ToNumber(part[0], "prompt");
  if (part.size() == 1) return TextOf(own, count);
  return TextOf(command.ToNumber(part[1], "prompt"), count);
}

void Stage::ReadBudget(Command& command, Budget& budget) {
  budget.chunk_size = static_cast<int32_t>(command.Number("chunk", 0));
  const auto range = command.Text("auto");
  budget.automatic = command.Flag("auto") || range;
  if (range) {
    const std::pair<std::string, std::string> ends = absl::StrSplit(*range, '-');
    budget.chunk_size_min = static_cast<int32_t>(command.ToNumber(ends.first, "auto"));
    budget.chunk_size_max = static_cast<int32_t>(command.ToNumber(ends.second, "auto"));
  }
  budget.kv_bytes_max = command.Number("kv_pages", 0) * kPageEntries * model_.bytes_per_entry;
  if (budget.kv_bytes_max > 0 && !budget.automatic) command.Fail("'kv_pages' needs 'auto'");
  budget.quality_column = static_cast<int32_t>(command.Number("column", 0));
  if (const auto sizes = command.Text("among")) {
    for (const absl::string_view size : absl::StrSplit(*sizes, ',')) {
      budget.among.push_back(static_cast<int32_t>(command.ToNumber(size, "among")));
    }
  }
}

absl::Status Stage::Arrive(Command& command) {
  Request request;
  const std::string name = command.Word("a name");
  request.prompt = ReadPrompt(command.Text("prompt").value_or("0"), command);
  ReadBudget(command, request.budget);
  request.stop.max_tokens = static_cast<int32_t>(command.Number("max", -1));
  request.stop.min_tokens = static_cast<int32_t>(command.Number("min", 0));
  request.sampling.seed = actors_.size();
  if (command.Flag("greedy")) request.sampling.temperature = 0;
  request.choices = static_cast<int32_t>(command.Number("n", 1));
  request.priority = static_cast<int32_t>(command.Number("priority", 0));
  request.cache_salt = command.Text("salt").value_or("");
  request.owner = command.Text("owner").value_or("");
  request.bypass_prefix_cache = command.Flag("bypass");
  if (const int64_t seconds = command.Number("deadline", -1); seconds >= 0) {
    request.deadline = driver_->now + absl::Seconds(seconds);
  }
  if (const int64_t seconds = command.Number("time_limit", -1); seconds >= 0) {
    request.time_limit = absl::Seconds(seconds);
  }
  if (const int64_t stops = command.Number("stops", 0); stops > 0) {
    if (request.budget.automatic || stops > request.stop.max_tokens) {
      return Wrong("'stops' needs an exact chunk size, and max tokens to stop before");
    }
    request.stop.stop_ids = {Alone(request).ids()[stops - 1]};
  }
  return Join(name, std::move(request), command);
}

absl::Status Stage::Score(Command& command) {
  Request request;
  request.task = Task::kScore;
  const std::string name = command.Word("a name");
  request.prompt = ReadPrompt(command.Text("text").value_or("0"), command);
  request.budget.chunk_size = static_cast<int32_t>(command.Number("chunk", 0));
  return Join(name, std::move(request), command);
}

absl::Status Stage::Join(const std::string& name, Request request, Command& command) {
  for (const Actor& actor : actors_) {
    if (actor.name == name) command.Fail(absl::StrCat("there is a request '", name, "' already"));
  }
  if (auto status = command.Finish(); !status.ok()) return status;
  if (auto status = ValidateRequest(model_, options_, request); !status.ok()) return status;
  const RequestKey key = driver_->Add(request);
  actors_.push_back({.name = name, .key = key, .request = request});
  narrator_->Introduce(key, name, request);
  return absl::OkStatus();
}

const Stage::Actor* Stage::Find(const std::string& name, Command& command) const {
  for (const Actor& actor : actors_) {
    if (actor.name == name) return &actor;
  }
  command.Fail(absl::StrCat("there is no request '", name, "'"));
  return nullptr;
}

// -- What happens ---------------------------------------------------------------------------------

absl::Status Stage::Play(Command& command) {
  const std::string& verb = command.verb();
  if (verb == "arrive") return Arrive(command);
  if (verb == "score") return Score(command);
  if (verb == "step") return Step(command);
  if (verb == "run") return Run(command);
  if (verb == "wait") {
    const int64_t seconds = command.WholeNumber().value_or(-1);
    if (seconds < 0) command.Fail("'wait' needs seconds");
    if (auto status = command.Finish(); !status.ok()) return status;
    driver_->now += absl::Seconds(seconds);
    return absl::OkStatus();
  }
  if (verb == "show") {
    lines_.push_back(narrator_->Describe(paused_));
    return command.Finish();
  }
  return Disturb(command);
}

absl::Status Stage::Step(Command& command) {
  const int64_t count = command.WholeNumber().value_or(1);
  if (count < 1 || count > kStepsMost) command.Fail("'step' needs a number of steps");
  if (auto status = command.Finish(); !status.ok()) return status;
  for (int64_t i = 0; i < count; ++i) {
    driver_->Step();
    narrator_->EndMoment(/*rows=*/true);
  }
  lines_ = narrator_->TakeLines();
  return absl::OkStatus();
}

bool Stage::AllRest() const {
  const Scheduler& scheduler = driver_->scheduler;
  if (scheduler.idle()) return true;
  return scheduler.running() + scheduler.waiting() == scheduler.paused();
}

absl::Status Stage::Run(Command& command) {
  const std::optional<int64_t> most = command.WholeNumber();
  if (auto status = command.Finish(); !status.ok()) return status;
  int64_t steps = 0;
  for (bool ran = true; steps != most && !driver_->scheduler.idle() && (ran || !AllRest());) {
    ran = driver_->Step() > 0;
    narrator_->EndMoment(/*rows=*/false);
    steps += ran ? 1 : 0;
    if (steps > kStepsMost) return Wrong("requests wait for ever");
  }
  lines_ = narrator_->TakeLines();
  lines_.insert(lines_.begin(), absl::StrCat(steps, steps == 1 ? " step" : " steps"));
  return absl::OkStatus();
}

absl::Status Stage::Disturb(Command& command) {
  const std::string& verb = command.verb();
  Scheduler& scheduler = driver_->scheduler;
  if (verb == "cancel_all") {
    if (auto status = command.Finish(); !status.ok()) return status;
    scheduler.CancelAll(FinishReason::kCancelled, driver_->now);
  } else if (verb == "cancel" || verb == "pause" || verb == "resume" || verb == "end_choice") {
    const Actor* actor = Find(command.Word("a name"), command);
    const int64_t choice = verb == "end_choice" ? command.WholeNumber().value_or(-1) : 0;
    if (choice < 0) command.Fail("'end_choice' needs a name and a choice");
    if (auto status = command.Finish(); !status.ok()) return status;
    if (verb == "cancel") scheduler.Cancel(actor->key, driver_->now);
    if (verb == "end_choice") {
      scheduler.EndChoice(actor->key, static_cast<int32_t>(choice), driver_->now);
    }
    if (verb == "pause" || verb == "resume") {
      scheduler.SetPaused(actor->key, verb == "pause");
      verb == "pause" ? (void)paused_.insert(actor->key) : (void)paused_.erase(actor->key);
    }
  } else {
    return Wrong(absl::StrCat("there is no command '", verb, "'"));
  }
  driver_->Read(scheduler.TakeReports());
  narrator_->EndMoment(/*rows=*/false);
  lines_ = narrator_->TakeLines();
  return absl::OkStatus();
}

// -- How it ends ----------------------------------------------------------------------------------

Story Stage::Alone(Request request) const {
  request.deadline = absl::InfiniteFuture();
  request.time_limit = absl::InfiniteDuration();
  const ScheduleLimits roomy{
      .slots = 16, .kv_pages = 4096, .step_rows_max = 1024, .step_tokens_max = 1024};
  return Driver(model_, roomy).Tell(request);
}

std::vector<TokenId> Stage::AnswerAlone(const Actor& actor, const Story& story,
                                        int32_t choice) const {
  Request request = actor.request;
  request.budget = {.chunk_size = story.started->chunk_size};
  std::vector<TokenId> answer = Alone(request).ids(choice);
  for (const BudgetChangedEvent& change : story.changes) {
    const auto kept =
        std::min<int64_t>(std::ssize(answer), change.at_token - std::ssize(actor.request.prompt));
    answer.resize(kept);
    request = actor.request;
    request.prompt.insert(request.prompt.end(), answer.begin(), answer.end());
    request.budget = {.chunk_size = change.to_chunk_size};
    request.stop.max_tokens -= static_cast<int32_t>(kept);
    request.stop.min_tokens = std::max(0, request.stop.min_tokens - static_cast<int32_t>(kept));
    const std::vector<TokenId> rest = Alone(request).ids(choice);
    answer.insert(answer.end(), rest.begin(), rest.end());
  }
  return answer;
}

absl::Status Stage::CheckAnswer(const Actor& actor) {
  const Story& story = driver_->stories[actor.key];
  // When choices are coarsened, the event tells of the longest only.
  if (!story.started || (actor.request.choices > 1 && !story.changes.empty())) {
    return absl::OkStatus();
  }
  for (int32_t choice = 0; choice < std::ssize(story.ends); ++choice) {
    const std::vector<TokenId> got = story.ids(choice);
    const std::vector<TokenId> alone = AnswerAlone(actor, story, choice);
    const bool whole = story.ends[choice] != FinishReason::kLength || got.size() == alone.size();
    if (!whole || got.size() > alone.size() || !std::equal(got.begin(), got.end(), alone.begin())) {
      return Wrong(absl::StrCat(actor.name, " did not get the tokens that it gets alone"));
    }
  }
  if (story.scores.empty()) return absl::OkStatus();
  const std::vector<SampleResult> alone = Alone(actor.request).scores;
  const auto same = [](const SampleResult& a, const SampleResult& b) {
    return a.token.logprob == b.token.logprob;
  };
  if (story.scores.size() <= alone.size() &&
      std::equal(story.scores.begin(), story.scores.end(), alone.begin(), same)) {
    return absl::OkStatus();
  }
  return Wrong(absl::StrCat(actor.name, " did not get the scores that it gets alone"));
}

absl::Status Stage::Close() {
  if (!driver_) return Wrong("nothing happens");
  if (!driver_->scheduler.idle()) return Wrong("requests are left at the end; add 'run'");
  if (driver_->scheduler.pool().held() != 0) return Wrong("pages are held at the end");
  for (const Actor& actor : actors_) {
    if (auto status = CheckAnswer(actor); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace catserve

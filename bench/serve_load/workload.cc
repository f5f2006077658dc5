#include "bench/serve_load/workload.h"

#include <cmath>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace catserve {
namespace {

constexpr double kShareTolerance = 1e-6;

// Streams of the seed, one for each thing drawn.
enum Stream : uint64_t { kArrivals = 1, kLengths, kBudgets, kCancels, kSlow, kPrefix, kPrompts };

absl::StatusOr<Lengths> ReadPair(absl::string_view text, absl::string_view prompt,
                                 absl::string_view generated) {
  Lengths lengths;
  const auto good = [](int32_t n) { return n >= 1 && n <= kTokensMax; };
  if (absl::SimpleAtoi(prompt, &lengths.prompt) && good(lengths.prompt) &&
      absl::SimpleAtoi(generated, &lengths.generated) && good(lengths.generated)) {
    return lengths;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", text, "\" is no pair of lengths: prompt and generated tokens, each 1 to ", kTokensMax));
}

// "auto", "auto8-32" or a chunk size.
bool ReadBudget(absl::string_view name, BudgetChoice& choice) {
  if (name == "none") return true;
  if (absl::ConsumePrefix(&name, "auto")) {
    choice.kind = BudgetChoice::Kind::kAuto;
    if (name.empty()) return true;
    const std::vector<absl::string_view> range = absl::StrSplit(name, '-');
    return range.size() == 2 && absl::SimpleAtoi(range[0], &choice.chunk_size_min) &&
           absl::SimpleAtoi(range[1], &choice.chunk_size_max) && choice.chunk_size_min >= 1 &&
           choice.chunk_size_max >= choice.chunk_size_min;
  }
  choice.kind = BudgetChoice::Kind::kFixed;
  if (!absl::SimpleAtoi(name, &choice.chunk_size_min) || choice.chunk_size_min < 1) return false;
  choice.chunk_size_max = choice.chunk_size_min;
  return true;
}

}  // namespace

absl::StatusOr<std::vector<Lengths>> ReadLengths(absl::string_view list) {
  std::vector<Lengths> result;
  for (const absl::string_view text : absl::StrSplit(list, ',')) {
    const std::vector<absl::string_view> pair = absl::StrSplit(text, ':');
    const absl::StatusOr<Lengths> lengths =
        pair.size() == 2 ? ReadPair(text, pair[0], pair[1]) : ReadPair(text, "", "");
    if (!lengths.ok()) return lengths.status();
    result.push_back(*lengths);
  }
  return result;
}

absl::StatusOr<std::vector<Lengths>> ReadLengthsFile(absl::string_view text) {
  std::vector<Lengths> result;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    line = absl::StripAsciiWhitespace(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const std::vector<absl::string_view> pair =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    const absl::StatusOr<Lengths> lengths =
        pair.size() == 2 ? ReadPair(line, pair[0], pair[1]) : ReadPair(line, "", "");
    if (!lengths.ok()) return lengths.status();
    result.push_back(*lengths);
    if (result.size() > kLengthsMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("the file of lengths has more than ", kLengthsMax, " lines: shorten it"));
    }
  }
  if (result.empty()) return absl::InvalidArgumentError("the file of lengths is empty");
  return result;
}

absl::StatusOr<std::vector<BudgetChoice>> ReadBudgets(absl::string_view list) {
  std::vector<BudgetChoice> result;
  double total = 0;
  for (const absl::string_view text : absl::StrSplit(list, ',')) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(text, absl::MaxSplits(':', 1));
    BudgetChoice choice;
    const bool share = parts.second.empty() || absl::SimpleAtod(parts.second, &choice.share);
    if (!ReadBudget(parts.first, choice) || !share || !(choice.share > 0 && choice.share <= 1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", text,
                       "\" is no budget: write a chunk size, auto, auto8-32 or none, and its share "
                       "of the requests, as 8:0.5,auto8-32:0.5"));
    }
    total += choice.share;
    result.push_back(choice);
  }
  if (std::abs(total - 1) > kShareTolerance) {
    return absl::InvalidArgumentError(
        absl::StrCat("the shares of --budgets=", list, " add up to ", total, ", not to 1"));
  }
  return result;
}

absl::StatusOr<std::vector<Phase>> ReadPhases(absl::string_view list) {
  std::vector<Phase> result;
  double total = 0;
  bool any = false;
  for (const absl::string_view text : absl::StrSplit(list, ',')) {
    const std::vector<absl::string_view> pair = absl::StrSplit(text, ':');
    Phase phase;
    if (pair.size() != 2 || !absl::SimpleAtod(pair[0], &phase.rate) ||
        !absl::SimpleAtod(pair[1], &phase.seconds) ||
        !(phase.rate >= 0 && phase.rate <= kRateMax) || !(phase.seconds > 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", text, "\" is no phase: write requests per second (0 to ", kRateMax,
                       ") and seconds, as 2:30"));
    }
    total += phase.seconds;
    any |= phase.rate > 0;
    result.push_back(phase);
  }
  if (!any || !(total <= kDurationMaxSeconds) || result.size() > kPhasesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("--phases=", list, " must send something, within ", kDurationMaxSeconds,
                     " seconds and ", kPhasesMax, " phases"));
  }
  return result;
}

PoissonArrivals::PoissonArrivals(std::vector<Phase> phases, uint64_t seed)
    : phases_(std::move(phases)), random_(seed, kArrivals) {}

std::optional<double> PoissonArrivals::Next() {
  // Arrivals are a Poisson process of rate 1 in the time that passes `rate` times as fast.
  double gap = -std::log(1 - random_.Unit());
  while (phase_ < phases_.size()) {
    const Phase& phase = phases_[phase_];
    const double left = phase_start_ + phase.seconds - now_;
    if (gap < left * phase.rate) return now_ += gap / phase.rate;
    gap -= left * phase.rate;
    now_ = phase_start_ += phase.seconds;
    ++phase_;
  }
  return std::nullopt;
}

Workload::Workload(WorkloadSpec spec)
    : spec_(std::move(spec)),
      lengths_(spec_.seed, kLengths),
      budgets_(spec_.seed, kBudgets),
      cancels_(spec_.seed, kCancels),
      slow_(spec_.seed, kSlow) {}

const BudgetChoice& Workload::DrawBudget() {
  double place = budgets_.Unit();
  for (const BudgetChoice& choice : spec_.budgets) {
    if (place < choice.share) return choice;
    place -= choice.share;
  }
  return spec_.budgets.back();
}

Shot Workload::Next() {
  Shot shot;
  shot.index = drawn_++;
  shot.lengths = spec_.lengths[lengths_.Below(static_cast<int64_t>(spec_.lengths.size()))];
  shot.budget = DrawBudget();
  // Both are drawn always, so that a share changes who cancels and nothing else.
  const bool cancels = cancels_.Unit() < spec_.cancel_share;
  const auto after = static_cast<int32_t>(1 + cancels_.Below(shot.lengths.generated));
  if (cancels) shot.cancel_after = after;
  shot.slow = slow_.Unit() < spec_.slow_share;
  shot.seed = spec_.seed + static_cast<uint64_t>(shot.index);
  return shot;
}

std::vector<int32_t> Workload::Prompt(const Shot& shot) const {
  std::vector<int32_t> ids;
  ids.reserve(shot.lengths.prompt);
  Random prefix(spec_.seed, kPrefix);
  Random own(spec_.seed + static_cast<uint64_t>(shot.index) * 0x632be59bd9b4e019u, kPrompts);
  for (int32_t i = 0; i < shot.lengths.prompt; ++i) {
    Random& random = i < spec_.shared_prefix ? prefix : own;
    ids.push_back(static_cast<int32_t>(random.Below(spec_.vocabulary)));
  }
  return ids;
}

}  // namespace catserve

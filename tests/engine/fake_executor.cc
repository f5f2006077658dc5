#include "tests/engine/fake_executor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace catserve {

// -- What the golden README demands ---------------------------------------------------------------

uint64_t ReferenceRows::Mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9e3779b97f4a7c15u + b + 0x2545f4914f6cdd1du;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t ReferenceRows::FirstInput(int32_t chunk_size) { return Mix(0xf1, chunk_size); }

uint64_t ReferenceRows::SummaryInput(int32_t chunk_size, int32_t chunk,
                                     const TokenId* chunk_tokens) {
  uint64_t input = Mix(Mix(0x50, chunk_size), chunk);
  for (int32_t i = 0; i < chunk_size; ++i) input = Mix(input, chunk_tokens[i]);
  return input;
}

uint64_t ReferenceRows::RowSymbol(uint64_t input, int32_t position, uint64_t seen) {
  return Mix(Mix(input, position), seen) | 1;  // never 0, which is an entry not written
}

ReferenceRows::ReferenceRows(const ModelGeometry& model, int32_t chunk_size,
                             const std::vector<TokenId>& tokens)
    : kind_(model.kind), chunk_size_(chunk_size), tokens_(tokens), seen_{0}, dense_seen_{0} {}

uint64_t ReferenceRows::Seen(int32_t summaries) {
  if (summaries > 0) Summary(summaries - 1);
  return seen_[summaries];
}

uint64_t ReferenceRows::Summary(int32_t k) {
  for (auto i = static_cast<int32_t>(summaries_.size()); i <= k; ++i) {
    const uint64_t input =
        i == 0 ? FirstInput(chunk_size_)
               : SummaryInput(chunk_size_, i - 1, tokens_.data() + int64_t{i - 1} * chunk_size_);
    summaries_.push_back(RowSymbol(input, 0, seen_.back()));
    seen_.push_back(Mix(seen_.back(), summaries_.back()));
  }
  return summaries_[k];
}

uint64_t ReferenceRows::Separator(int32_t k) { return RowSymbol(SeparatorInput(), 1, Seen(k + 1)); }

uint64_t ReferenceRows::Token(int32_t position) {
  if (kind_ == ModelKind::kDense) {
    for (auto i = static_cast<int32_t>(dense_seen_.size()) - 1; i < position; ++i) {
      dense_seen_.push_back(
          Mix(dense_seen_[i], RowSymbol(TokenInput(tokens_[i]), i, dense_seen_[i])));
    }
    return RowSymbol(TokenInput(tokens_[position]), position, dense_seen_[position]);
  }
  const int32_t k = position / chunk_size_;
  uint64_t seen = Seen(k + 1);
  int32_t rotary = 1;
  if (kind_ == ModelKind::kCat) {
    seen = Mix(seen, Separator(k));
    ++rotary;
  }
  for (int32_t i = k * chunk_size_; i < position; ++i, ++rotary) {
    seen = Mix(seen, RowSymbol(TokenInput(tokens_[i]), rotary, seen));
  }
  return RowSymbol(TokenInput(tokens_[position]), rotary, seen);
}

// -- The executor ---------------------------------------------------------------------------------

FakeExecutor::FakeExecutor(ModelGeometry model, FakeExecutorOptions options)
    : model_(std::move(model)),
      options_(std::move(options)),
      entries_(options_.kv_pages * kPageEntries, 0),
      slots_(options_.slots) {}

void FakeExecutor::Check(bool holds, const std::string& message) const {
  CATSERVE_CHECK(holds) << label_ << " the plan is wrong: " << message;
}

void FakeExecutor::Launch(const StepPlan& plan) {
  Check(!plan.empty(), "launched without rows");
  Check(std::ssize(launched_) <= options_.pipeline_depth, "too many steps in flight");
  CheckBounds(plan);
  rows_most_ = std::max(rows_most_, static_cast<int32_t>(plan.rows.size()));
  launched_.push_back(plan);
}

StepResult FakeExecutor::Collect() {
  if (options_.before_collect) options_.before_collect();
  CATSERVE_CHECK(!launched_.empty()) << "nothing to collect; Launch first";
  const StepPlan plan = std::move(launched_.front());
  launched_.pop_front();
  WriteHistory(plan);
  CopyPages(plan);
  CheckCompressions(plan);
  Step step{.symbols = std::vector<uint64_t>(plan.rows.size()),
            .predicts = std::vector<int32_t>(plan.rows.size(), -1),
            .slots = std::vector<int32_t>(plan.rows.size(), -1),
            .page_owner = std::vector<int32_t>(options_.kv_pages, -1)};
  for (const RowRun& run : plan.runs) ComputeRun(plan, run, step);
  StepResult result;
  for (const Compression& c : plan.compressions) {
    result.times.compress += kFakeTokenTime * c.chunk_size;
  }
  for (const Sample& sample : plan.samples) result.samples.push_back(Draw(sample, step));
  for (const ScoreRow& score : plan.scores) result.scores.push_back(Score(score, step));
  return result;
}

void FakeExecutor::CheckBounds(const StepPlan& plan) {
  int64_t compressor_tokens = 0;
  for (const Compression& c : plan.compressions) compressor_tokens += c.chunk_size;
  Check(std::ssize(plan.rows) <= options_.step_rows_max, "more rows than step_rows_max");
  Check(compressor_tokens <= options_.step_rows_max, "more compressor tokens than step_rows_max");
  int32_t next_row = 0;
  for (const RowRun& run : plan.runs) {
    Check(run.slot >= 0 && run.slot < options_.slots, absl::StrCat("slot ", run.slot));
    Check(run.first_row == next_row && run.row_count > 0, "runs do not follow each other");
    next_row = run.first_row + run.row_count;
    Check(run.first_entry + run.row_count <= run.pages.count * kPageEntries &&
              run.prefix_entries <= run.prefix.count * kPageEntries,
          absl::StrCat("slot ", run.slot, ": entries lie outside of the run's pages"));
    for (const PageList list : {run.prefix, run.pages}) {
      Check(list.first + list.count <= std::ssize(plan.page_ids), "a page list is too long");
    }
  }
  Check(next_row == std::ssize(plan.rows), "rows belong to no run");
  for (const PageId page : plan.page_ids) {
    Check(page >= 0 && page < options_.kv_pages, absl::StrCat("page ", page, " is none"));
  }
}

void FakeExecutor::WriteHistory(const StepPlan& plan) {
  for (const HistoryWrite& write : plan.history_writes) {
    std::vector<TokenId>& history = slots_[write.slot].history;
    Check(write.position == 0, "what the host knows of a history starts it");
    slots_[write.slot].reference.reset();
    history.assign(plan.tokens.begin() + write.first,
                   plan.tokens.begin() + write.first + write.count);
  }
}

// Only the entries that were asked for: what lies behind them must not be read.
void FakeExecutor::CopyPages(const StepPlan& plan) {
  for (const PageCopy& copy : plan.page_copies) {
    Check(copy.from != copy.to && copy.entries > 0 && copy.entries <= kPageEntries &&
              std::min(copy.from, copy.to) >= 0 && std::max(copy.from, copy.to) < options_.kv_pages,
          absl::StrCat("copies ", copy.entries, " entries of page ", copy.from, " to ", copy.to));
    const auto from = entries_.begin() + int64_t{copy.from} * kPageEntries;
    const auto to = entries_.begin() + int64_t{copy.to} * kPageEntries;
    std::fill(std::copy(from, from + copy.entries, to), to + kPageEntries, 0);
  }
}

void FakeExecutor::CheckCompressions(const StepPlan& plan) {
  std::vector<int32_t> used(plan.compressions.size(), 0);
  for (const Row& row : plan.rows) {
    if (row.kind == RowKind::kSummary) ++used[row.index];
  }
  for (size_t i = 0; i < plan.compressions.size(); ++i) {
    const Compression& c = plan.compressions[i];
    Check(used[i] == 1, "a compression belongs to one row");
    Check((int64_t{c.chunk_index} + 1) * c.chunk_size <= std::ssize(slots_[c.slot].history),
          absl::StrCat("slot ", c.slot, ": chunk ", c.chunk_index, " is not complete"));
  }
}

int64_t FakeExecutor::EntryAt(const StepPlan& plan, PageList pages, int32_t entry) {
  const PageId page = plan.page_ids[pages.first + entry / kPageEntries];
  return int64_t{page} * kPageEntries + entry % kPageEntries;
}

void FakeExecutor::ComputeRun(const StepPlan& plan, const RowRun& run, Step& step) {
  for (int32_t entry = run.first_entry; entry < run.first_entry + run.row_count; ++entry) {
    int32_t& owner = step.page_owner[EntryAt(plan, run.pages, entry) / kPageEntries];
    Check(owner == -1 || owner == run.slot,
          absl::StrCat("slots ", owner, " and ", run.slot, " write the same page"));
    owner = run.slot;
  }
  for (int32_t i = 0; i < run.row_count; ++i) ComputeRow(plan, run, i, step);
}

void FakeExecutor::ComputeRow(const StepPlan& plan, const RowRun& run, int32_t index, Step& step) {
  const int32_t row_index = run.first_row + index;
  const Row& row = plan.rows[row_index];
  uint64_t seen = 0;
  for (int32_t e = 0; e < run.prefix_entries; ++e) {
    seen = ReferenceRows::Mix(seen, entries_[EntryAt(plan, run.prefix, e)]);
  }
  for (int32_t e = 0; e < run.first_entry + index; ++e) {
    seen = ReferenceRows::Mix(seen, entries_[EntryAt(plan, run.pages, e)]);
  }
  const uint64_t symbol = ReferenceRows::RowSymbol(Input(plan, run, row), row.position, seen);
  const int32_t seen_entries = run.prefix_entries + run.first_entry + index;
  int32_t predicts = -1;
  const uint64_t expected = Expected(plan, run, row, seen_entries, predicts);
  Check(symbol == expected,
        absl::StrCat("slot ", run.slot, ": row ", row_index, " of kind ",
                     static_cast<int>(row.kind), " index ", row.index, " position ", row.position,
                     " does not see what it must in its ", seen_entries, " entries"));
  entries_[EntryAt(plan, run.pages, run.first_entry + index)] = symbol;
  step.symbols[row_index] = symbol;
  step.predicts[row_index] = predicts;
  step.slots[row_index] = run.slot;
}

uint64_t FakeExecutor::Input(const StepPlan& plan, const RowRun& run, const Row& row) {
  const std::vector<TokenId>& history = slots_[run.slot].history;
  switch (row.kind) {
    case RowKind::kFirst: return ReferenceRows::FirstInput(run.chunk_size);
    case RowKind::kSeparator: return ReferenceRows::SeparatorInput();
    case RowKind::kSummary: {
      const Compression& c = plan.compressions[row.index];
      Check(c.slot == run.slot && c.chunk_size == run.chunk_size, "a summary of another's chunk");
      return ReferenceRows::SummaryInput(
          c.chunk_size, c.chunk_index,
          slots_[c.slot].history.data() + int64_t{c.chunk_index} * c.chunk_size);
    }
    case RowKind::kToken: break;
  }
  Check(row.index >= 0 && row.index < std::ssize(history),
        absl::StrCat("slot ", run.slot, ": token ", row.index, " is not known yet"));
  return ReferenceRows::TokenInput(history[row.index]);
}

ReferenceRows& FakeExecutor::Reference(const RowRun& run) {
  SlotState& slot = slots_[run.slot];
  if (!slot.reference || slot.chunk_size != run.chunk_size) {
    slot.reference.emplace(model_, run.chunk_size, slot.history);
    slot.chunk_size = run.chunk_size;
  }
  return *slot.reference;
}

uint64_t FakeExecutor::Expected(const StepPlan& plan, const RowRun& run, const Row& row,
                                int32_t seen, int32_t& predicts) {
  const int32_t size = run.chunk_size;
  ReferenceRows& reference = Reference(run);
  switch (row.kind) {
    case RowKind::kFirst:
    case RowKind::kSummary: {
      Check(model_.compresses(), "a dense model has no summaries");
      const bool first = row.kind == RowKind::kFirst;
      const int32_t k = first ? 0 : plan.compressions[row.index].chunk_index + 1;
      if (model_.kind == ModelKind::kCatFixed) predicts = k * size;
      return reference.Summary(k);
    }
    case RowKind::kSeparator: {
      Check(model_.kind == ModelKind::kCat, "this model has no separator");
      const int32_t k = seen - 1;  // it sees g_0 .. g_k
      predicts = k * size;
      Check(predicts >= 0 && predicts <= std::ssize(slots_[run.slot].history),
            absl::StrCat("slot ", run.slot, ": a separator sees ", seen, " entries"));
      return reference.Separator(k);
    }
    case RowKind::kToken: break;
  }
  Check(size == 0 || row.index % size != size - 1, "the last token of a chunk needs no row");
  predicts = row.index + 1;
  return reference.Token(row.index);
}

SampleResult FakeExecutor::Draw(const Sample& sample, const Step& step) {
  std::vector<TokenId>& history = slots_[sample.slot].history;
  Check(step.slots[sample.row] == sample.slot && step.predicts[sample.row] == sample.position,
        absl::StrCat("slot ", sample.slot, ": row ", sample.row, " predicts token ",
                     step.predicts[sample.row], ", not ", sample.position));
  Check(std::ssize(history) == sample.position && sample.position < model_.block_size &&
            sample.prompt_tokens <= sample.position,
        absl::StrCat("slot ", sample.slot, ": token ", sample.position, " cannot come after ",
                     history.size()));
  const uint64_t symbol = step.symbols[sample.row];
  uint64_t word = ReferenceRows::Mix(symbol, 0);
  if (sample.params->temperature > 0) {
    word = ReferenceRows::Mix(word, sample.params->seed);
    word = ReferenceRows::Mix(ReferenceRows::Mix(word, sample.choice), sample.position);
  }
  auto id = static_cast<TokenId>(word % model_.vocab_size);
  const auto& forbidden = sample.forbidden;
  while (std::find(forbidden.begin(), forbidden.end(), id) != forbidden.end()) {
    id = (id + 1) % model_.vocab_size;
  }
  history.push_back(id);
  return Describe(symbol, id, sample.params->logprobs);
}

SampleResult FakeExecutor::Score(const ScoreRow& score, const Step& step) {
  Check(step.slots[score.row] == score.slot && step.predicts[score.row] == score.position,
        absl::StrCat("slot ", score.slot, ": row ", score.row, " predicts token ",
                     step.predicts[score.row], ", not ", score.position));
  return Describe(step.symbols[score.row], slots_[score.slot].history[score.position], score.top_n);
}

SampleResult FakeExecutor::Describe(uint64_t symbol, TokenId id, int32_t top_n) const {
  const auto logprob = [symbol](TokenId token) {
    return -0.01f * static_cast<float>(1 + ReferenceRows::Mix(symbol, 1 + token) % 10007);
  };
  SampleResult result{.token = {.id = id, .logprob = logprob(id)}};
  if (top_n <= 0) return result;
  for (TokenId t = 0; t < model_.vocab_size; ++t) result.top.push_back({t, logprob(t)});
  std::stable_sort(result.top.begin(), result.top.end(),
                   [](const auto& a, const auto& b) { return a.logprob > b.logprob; });
  result.top.resize(std::min<size_t>(top_n, result.top.size()));
  return result;
}

}  // namespace catserve

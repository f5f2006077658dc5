#include "bench/engine_runs.h"

#include <algorithm>
#include <condition_variable>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "bench/floor.h"
#include "engine/engine.h"
#include "engine/model/model_executor.h"

namespace catserve {
namespace {

constexpr int kWindows = 3;  // a run's decode is cut into these, for the spread
constexpr int kPrefillRuns = 3;
constexpr int32_t kTextsApart = 31;  // of a batch and the next larger
constexpr int kReadTokens = 12;      // that are drawn after each prompt while others are read

struct Setup {
  Backend& backend;
  const Ceilings& ceilings;
  const EngineRuns& runs;
  const Model& model;
  const ModelDescription& description;
};

struct Spread {
  double median = 0, low = 0, high = 0;
};

Spread Of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values[values.size() / 2], values.front(), values.back()};
}

// Counts tokens and notes when; shared by the sinks of one run.
class Progress {
 public:
  // When every request had so many tokens, and how many they had in all.
  struct Mark {
    int tokens = 0;
    int reached = 0;  // by so many requests
    absl::Time at;
    int64_t total = 0;
  };

  Progress(int requests, const std::vector<int>& marks) : tokens_(requests, 0) {
    for (const int tokens : marks) marks_.push_back({.tokens = tokens});
  }

  void Tell(int request, int tokens, bool finished) {
    const std::lock_guard lock(mutex_);
    const int before = tokens_[request];
    tokens_[request] += tokens;
    total_ += tokens;
    for (Mark& mark : marks_) {
      if (before >= mark.tokens || tokens_[request] < mark.tokens) continue;
      if (++mark.reached == std::ssize(tokens_)) mark.at = absl::Now(), mark.total = total_;
    }
    finished_ += finished ? 1 : 0;
    changed_.notify_all();
  }
  Mark WaitFor(size_t mark) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return marks_[mark].reached == std::ssize(tokens_); });
    return marks_[mark];
  }
  void WaitForEnd() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return finished_ == std::ssize(tokens_); });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int> tokens_;
  std::vector<Mark> marks_;
  int64_t total_ = 0;
  int finished_ = 0;
};

// `text`: requests of different texts share nothing.
Request MakeRequest(const Setup& setup, int32_t chunk_size, int32_t text, int32_t prompt,
                    int32_t generated) {
  Request request;
  for (int32_t i = 0; i < prompt; ++i) {
    request.prompt.push_back((i * 7919 + text) % setup.description.geometry.vocab_size);
  }
  request.budget.chunk_size = chunk_size;
  request.sampling.temperature = 0;
  request.stop.max_tokens = generated;
  return request;
}

EventSink Sink(std::shared_ptr<Progress> progress, int request) {
  return [progress = std::move(progress), request](const Event& event) {
    if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
      progress->Tell(request, static_cast<int>(tokens->tokens.size()), false);
    } else if (std::holds_alternative<FinishedEvent>(event)) {
      progress->Tell(request, 0, true);
    }
  };
}

// Of sequence i of a batch.
int32_t PromptTokens(const EngineRuns& runs, int32_t chunk_size, int batch, int i) {
  switch (runs.lengths) {
    case Lengths::kLockStep: return runs.prompt_tokens;
    case Lengths::kSpread:
      return std::max<int32_t>(1, int64_t{2 * i + 1} * runs.prompt_tokens / batch);
    case Lengths::kStaggered: break;
  }
  return runs.prompt_tokens - (chunk_size > 0 ? i % chunk_size : i % kPageEntries);
}

// What a sequence of a batch generates: those that begin first go on until the last has its tokens.
int32_t GeneratedTokens(const EngineRuns& runs, int batch) { return runs.generated_tokens + batch; }

std::string Line(const std::string& name, double value, const char* unit) {
  return absl::StrFormat("%s=%.6g %s\n", name, value, unit);
}

// The runs of one chunk size.
class ChunkSizeRuns {
 public:
  ChunkSizeRuns(const Setup& setup, Engine& engine, int32_t chunk_size)
      : setup_(setup),
        engine_(engine),
        chunk_size_(chunk_size),
        id_(absl::StrCat(setup.runs.name, ".",
                         chunk_size > 0 ? absl::StrCat("c", chunk_size) : "dense")) {}

  // Each prints a row of the table and returns name=value lines.
  absl::StatusOr<std::string> Prefill();
  absl::StatusOr<std::string> Decode(int batch);

 private:
  struct Times {
    Spread tokens_per_second;
    double prompts = 0;                 // tokens of prompts per second, read together beforehand
    double mean_tokens_per_second = 0;  // over all windows
    double kv_bytes_per_sequence = 0;   // as held by the live sequences, halfway through
  };
  absl::StatusOr<Times> TimeDecode(int batch);
  absl::StatusOr<std::shared_ptr<Progress>> Submit(int batch, int32_t generated);

  const Setup& setup_;
  Engine& engine_;
  const int32_t chunk_size_;
  const std::string id_;
};

absl::StatusOr<std::string> ChunkSizeRuns::Prefill() {
  const int32_t tokens = setup_.runs.prompt_tokens;
  std::vector<double> rates;
  for (int i = 0; i < kPrefillRuns; ++i) {
    auto progress = std::make_shared<Progress>(1, std::vector<int>{1});
    const absl::Time start = absl::Now();
    Request request = MakeRequest(setup_, chunk_size_, 0, tokens, 1);
    request.bypass_prefix_cache = true;  // else it would answer for the model
    const auto key = engine_.Submit(std::move(request), Sink(progress, 0));
    if (!key.ok()) return key.status();
    progress->WaitForEnd();
    rates.push_back(tokens / absl::ToDoubleSeconds(progress->WaitFor(0).at - start));
  }
  const Spread s = Of(std::move(rates));
  const double floor = PrefillFloor(setup_.description, setup_.ceilings, chunk_size_, tokens);
  std::cout << absl::StrFormat(
                   "| %-16s | prefill | %9.1f | %8.1f-%-8.1f | %8.2f |            | %4.0f%% |\n",
                   id_, s.median, s.low, s.high, 1e3 * tokens / s.median,
                   100 * floor * s.median / tokens)
            << std::flush;
  return Line(id_ + ".prefill", s.median, "tokens/s") +
         Line(absl::StrCat(id_, ".prefill_", tokens), 1e3 * tokens / s.median, "ms");
}

absl::StatusOr<std::shared_ptr<Progress>> ChunkSizeRuns::Submit(int batch, int32_t generated) {
  // The first token, then the end of each window.
  std::vector<int> marks = {1};
  for (int w = 1; w <= kWindows; ++w) marks.push_back(setup_.runs.generated_tokens * w / kWindows);
  auto progress = std::make_shared<Progress>(batch, marks);
  for (int i = 0; i < batch; ++i) {
    const int32_t prompt = PromptTokens(setup_.runs, chunk_size_, batch, i);
    const int32_t text = batch * kTextsApart + i;  // no batch finds what another one read
    const auto key = engine_.Submit(MakeRequest(setup_, chunk_size_, text, prompt, generated),
                                    Sink(progress, i));
    if (!key.ok()) return key.status();
  }
  return progress;
}

absl::StatusOr<ChunkSizeRuns::Times> ChunkSizeRuns::TimeDecode(int batch) {
  // The prompts are read first and then found in the prefix cache, so that all streams begin
  // together: else the first would be done before the last prompt is read.
  const absl::Time start = absl::Now();
  const auto read = Submit(batch, kReadTokens);
  if (!read.ok()) return read.status();
  const double seconds = absl::ToDoubleSeconds((*read)->WaitFor(0).at - start);
  (*read)->WaitForEnd();
  const auto progress = Submit(batch, GeneratedTokens(setup_.runs, batch));
  if (!progress.ok()) return progress.status();
  Times times;
  for (int i = 0; i < batch; ++i) {
    times.prompts += PromptTokens(setup_.runs, chunk_size_, batch, i) / seconds;
  }
  (*progress)->WaitFor(kWindows / 2 + 1);
  times.kv_bytes_per_sequence = static_cast<double>(engine_.Load().kv_pages_used) * kPageEntries /
                                batch *
                                static_cast<double>(setup_.description.geometry.bytes_per_entry);
  (*progress)->WaitForEnd();
  const auto rate = [&](int from_mark, int to_mark) {
    const Progress::Mark from = (*progress)->WaitFor(from_mark), to = (*progress)->WaitFor(to_mark);
    return static_cast<double>(to.total - from.total) / absl::ToDoubleSeconds(to.at - from.at);
  };
  std::vector<double> rates(kWindows);
  for (int w = 0; w < kWindows; ++w) rates[w] = rate(w, w + 1);
  times.tokens_per_second = Of(std::move(rates));
  times.mean_tokens_per_second = rate(0, kWindows);
  return times;
}

// Of the parts of steps that recur, those that were replayed from a graph; none where there are no
// such parts.
std::optional<double> Replayed(const PartCounts& before, const PartCounts& after) {
  const auto all = [](const PartCounts& counts) {
    return counts.replayed + counts.recorded + counts.first + counts.differed + counts.refused;
  };
  if (all(after) == all(before)) return std::nullopt;
  return static_cast<double>(after.replayed - before.replayed) /
         static_cast<double>(all(after) - all(before));
}

absl::StatusOr<std::string> ChunkSizeRuns::Decode(int batch) {
  const PartCounts before = setup_.backend.part_counts();
  const absl::StatusOr<Times> times = TimeDecode(batch);
  if (!times.ok()) return times.status();
  const std::optional<double> replayed = Replayed(before, setup_.backend.part_counts());
  const double tokens = setup_.runs.prompt_tokens + setup_.runs.generated_tokens / 2.0;
  const double floor =
      batch / DecodeStepFloor(setup_.description, setup_.ceilings, chunk_size_, batch, tokens);
  const Spread& s = times->tokens_per_second;
  const double step_ms = 1e3 * batch / s.median;
  std::cout << absl::StrFormat(
                   "| %-16s | %7d | %9.1f | %8.1f-%-8.1f | %8.2f | %10.0f | %4.0f%% |\n", id_,
                   batch, s.median, s.low, s.high, step_ms, times->kv_bytes_per_sequence,
                   100 * s.median / floor)
            << std::flush;
  const std::string key = absl::StrCat(id_, ".decode.batch", batch);
  return Line(key, s.median, "tokens/s") +
         Line(key + ".mean", times->mean_tokens_per_second, "tokens/s") +
         Line(key + ".prompts", times->prompts, "tokens/s") + Line(key + ".step", step_ms, "ms") +
         Line(key + ".kv_per_sequence", times->kv_bytes_per_sequence, "bytes") +
         (replayed ? Line(key + ".replayed", *replayed, "1") : "") +
         Line(key + ".floor_fraction", s.median / floor, "1");
}

// KV memory for every batch, each alone, and for a prompt alone.
EngineOptions OptionsFor(const Setup& setup, int32_t chunk_size) {
  const EngineRuns& runs = setup.runs;
  const auto pages = [&](int64_t tokens) {
    return PagesFor(PeakEntries(setup.description.geometry, chunk_size, tokens)) + 1;
  };
  EngineOptions options;
  options.slots = 1;
  options.kv_pages = pages(runs.prompt_tokens + 1);
  for (const int batch : runs.batches) {
    int64_t together = 0;
    for (int i = 0; i < batch; ++i) {
      together += pages(PromptTokens(runs, chunk_size, batch, i) + GeneratedTokens(runs, batch));
    }
    options.slots = std::max(options.slots, batch);
    options.kv_pages = std::max(options.kv_pages, together);
  }
  options.queue_requests_max = std::max(options.queue_requests_max, options.slots);
  if (runs.step_tokens > 0) options.step_tokens_max = runs.step_tokens;
  options.step_rows_max = std::max(options.step_rows_max, options.step_tokens_max);
  return options;
}

absl::StatusOr<std::string> RunChunkSize(const Setup& setup, int32_t chunk_size) {
  const EngineOptions options = OptionsFor(setup, chunk_size);
  const auto executor = ModelExecutor::Create(setup.model, setup.backend,
                                              {.slots = options.slots,
                                               .kv_pages = options.kv_pages,
                                               .kv_dtype = setup.runs.kv_dtype,
                                               .step_rows_max = options.step_rows_max,
                                               .prompts_beside = setup.runs.prompts_beside});
  if (!executor.ok()) return executor.status();
  Engine engine(setup.description.geometry, **executor, options);
  ChunkSizeRuns runs(setup, engine, chunk_size);
  absl::StatusOr<std::string> lines = runs.Prefill();
  for (const int batch : setup.runs.batches) {
    if (!lines.ok()) break;
    const absl::StatusOr<std::string> more = runs.Decode(batch);
    if (!more.ok()) return more.status();
    *lines += *more;
  }
  return lines;
}

}  // namespace

absl::Status RunEngines(Backend& backend, const Ceilings& ceilings, const EngineRuns& runs) {
  if (!backend.HoldsKv(runs.kv_dtype)) {
    return absl::InvalidArgumentError(
        absl::StrCat(backend.Description(), " holds no KV memory of ", Name(runs.kv_dtype)));
  }
  auto model = Model::Load(runs.directory, backend, {.weight_type = runs.weight_type});
  if (!model.ok()) return model.status();
  const ModelDescription description = (*model)->Describe(runs.kv_dtype);
  const Setup setup{backend, ceilings, runs, **model, description};
  std::cout << absl::StrFormat(
      "%s on %s: %.1f GB/s, %.0f GOP/s; weights %s, KV %s; prompts of %d tokens\n"
      "| model            | batch   |  tokens/s |       range       |  ms/step | KV B/seq   | "
      "floor "
      "|\n"
      "|------------------|---------|-----------|-------------------|----------|------------|------"
      "-"
      "|\n",
      runs.name, backend.Description(), ceilings.read_bytes_per_second / 1e9,
      ceilings.OpsPerSecond(description.weight_dtype) / 1e9, description.weight_dtype,
      description.kv_dtype, runs.prompt_tokens);
  std::vector<int32_t> sizes = description.geometry.chunk_sizes;
  if (sizes.empty()) sizes.push_back(0);
  if (!runs.chunk_sizes.empty()) {
    std::erase_if(sizes, [&](int32_t size) {
      return std::find(runs.chunk_sizes.begin(), runs.chunk_sizes.end(), size) ==
             runs.chunk_sizes.end();
    });
  }
  // Figures come with the table: what ends a run early leaves those before it.
  for (const int32_t chunk_size : sizes) {
    const absl::StatusOr<std::string> lines = RunChunkSize(setup, chunk_size);
    if (!lines.ok()) return lines.status();
    std::cout << *lines << std::flush;
  }
  return absl::OkStatus();
}

}  // namespace catserve

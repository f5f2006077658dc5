#include "engine/model/model_executor.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/batch_builder.h"
#include "engine/model/compressor.h"
#include "engine/model/decoder.h"
#include "engine/model/kv_cache.h"
#include "engine/model/prompt_compressor.h"
#include "engine/model/token_history.h"
#include "engine/model/transformer.h"
#include "kernels/check.h"

namespace catserve {
namespace {

StepParts PartsOf(const PartCounts& counts) {
  return {.replayed = counts.replayed,
          .recorded = counts.recorded,
          .first = counts.first,
          .differed = counts.differed,
          .refused = counts.refused};
}

SampleResult ResultOf(const TokenDraw& draw) {
  SampleResult result{.token = {draw.id, draw.logprob}};
  for (const auto& [id, logprob] : draw.top) result.top.push_back({id, logprob});
  return result;
}

// How many of the first scores are of tokens that follow each other in one history.
int32_t ConsecutiveTokens(std::span<const ScoreRow> scores) {
  int32_t count = 1;
  while (count < std::ssize(scores) && scores[count].slot == scores[0].slot &&
         scores[count].position == scores[0].position + count) {
    ++count;
  }
  return count;
}

}  // namespace

class ModelExecutor::Impl {
 public:
  static absl::StatusOr<std::unique_ptr<Impl>> Create(const Model& model, Backend& backend,
                                                      const ExecutorOptions& options);
  ~Impl() {
    if (!launched_.empty()) backend_.Synchronize();  // its results go nowhere afterwards
  }

  void Launch(const StepPlan& plan);
  StepResult Collect();
  int PipelineDepth() const { return backend_.StepsAhead(); }
  const StepTrace& trace() const { return trace_; }
  int64_t kv_pages() const { return cache_.pages(); }

 private:
  // A step launched and not yet collected. Results are written into it until then.
  struct Step {
    int64_t submitted = 0;
    StepTimes times;
    std::vector<TokenDraw> samples;
    std::vector<TokenDraw> scores;
    StepTrace trace;
  };

  Impl(const Model& model, Backend& backend, const ExecutorOptions& options, TokenHistory history)
      : model_(model), backend_(backend), options_(options), history_(std::move(history)) {}

  // Of fx_, for each chunk size.
  int64_t area_rows() const { return backend_.PaddedRows(options_.step_rows_max); }
  absl::Status Allocate();
  absl::Status AllocateCompressor(int64_t rows);
  absl::Status AllocateKv();
  void WriteHistory(const StepPlan& plan);
  std::vector<int32_t> Compress(const StepPlan& plan, StepTrace& trace);
  void DrawSamples(const StepPlan& plan, Step& step);
  void ScoreTokens(const StepPlan& plan, Step& step);
  SampleSpec SpecOf(const Sample& sample);
  void TraceSummaries(std::span<const int32_t> fx_rows, StepTrace& trace);
  void TraceLogits(const TensorView& logits, StepTrace& trace);

  const Model& model_;
  Backend& backend_;
  const ExecutorOptions options_;
  TokenHistory history_;
  KvCache cache_;
  std::optional<Workspace> workspace_;
  std::unique_ptr<Buffer> fx_buffer_;
  TensorView fx_;  // [.., d]: an area for each chunk size, then what is prompts_'; dense: empty
  std::optional<Compressor> compressor_;
  std::unique_ptr<PromptCompressor> prompts_;  // null: all chunks are compressed in line
  std::unique_ptr<Decoder> decoder_;

  std::deque<Step> launched_;  // oldest first
  std::vector<int32_t> rows_;  // scratch: rows of one block of logits
  StepTrace trace_;            // of the last step collected
};

absl::StatusOr<std::unique_ptr<ModelExecutor::Impl>> ModelExecutor::Impl::Create(
    const Model& model, Backend& backend, const ExecutorOptions& options) {
  constexpr int32_t kStepRowsMax = 1 << 16;
  if (options.step_rows_max < 1 || options.step_rows_max > kStepRowsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("step_rows_max is ", options.step_rows_max, ", expected 1 to ", kStepRowsMax));
  }
  absl::StatusOr<TokenHistory> history =
      TokenHistory::Create(backend, model.config(), options.slots);
  if (!history.ok()) return history.status();
  std::unique_ptr<Impl> impl(new Impl(model, backend, options, *std::move(history)));
  if (absl::Status status = impl->Allocate(); !status.ok()) return status;
  return impl;
}

absl::Status ModelExecutor::Impl::Allocate() {
  const ModelConfig& config = model_.config();
  // However few rows a step has, one chunk must fit.
  const int64_t rows = backend_.PaddedRows(
      config.compresses() ? std::max(options_.step_rows_max, config.compressor_positions())
                          : options_.step_rows_max);
  const StackLayout decoder_stack{&config.decoder, model_.weights().stack.activations};
  const StackLayout compressor_stack{&config.compressor,
                                     model_.weights().compressor.stack.activations};
  absl::StatusOr<Workspace> workspace =
      config.compresses() ? Workspace::Create(backend_, {decoder_stack, compressor_stack}, rows)
                          : Workspace::Create(backend_, {decoder_stack}, rows);
  if (!workspace.ok()) return workspace.status();
  workspace_ = *std::move(workspace);

  absl::StatusOr<std::unique_ptr<Decoder>> decoder =
      Decoder::Create(backend_, config, model_.weights(), *workspace_, cache_);
  if (!decoder.ok()) return decoder.status();
  decoder_ = *std::move(decoder);
  if (config.compresses()) {
    if (absl::Status status = AllocateCompressor(rows); !status.ok()) return status;
  }
  return AllocateKv();
}

absl::Status ModelExecutor::Impl::AllocateCompressor(int64_t rows) {
  const ModelConfig& config = model_.config();
  const CompressorWeights& weights = model_.weights().compressor;
  // The schedule gives a step no more tokens to compress than rows.
  const int32_t smallest = *std::min_element(config.chunk_sizes.begin(), config.chunk_sizes.end());
  const PromptCompressor::Options prompts{.slots = options_.slots,
                                          .rows_max = rows,
                                          .chunks_max = options_.step_rows_max / smallest + 1};
  // Nothing can run beside steps that are done when they are given.
  const bool beside = options_.prompts_beside && backend_.StepsAhead() > 0;
  const int64_t fx_rows =
      FxAreas(config) * area_rows() + (beside ? PromptCompressor::FxRows(prompts) : 0);
  absl::StatusOr<std::unique_ptr<Buffer>> fx =
      backend_.Allocate(fx_rows * config.decoder.dim * SizeOf(DType::kF32));
  if (!fx.ok()) return fx.status();
  fx_buffer_ = *std::move(fx);
  fx_ = {fx_buffer_->data(), DType::kF32, {fx_rows, config.decoder.dim}};
  compressor_.emplace(backend_, config, weights, *workspace_);
  if (!beside) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<PromptCompressor>> made =
      PromptCompressor::Create(backend_, config, weights, fx_, prompts);
  if (!made.ok()) return made.status();
  prompts_ = *std::move(made);
  return absl::OkStatus();
}

// Last: whoever chooses how much may ask what is left.
absl::Status ModelExecutor::Impl::AllocateKv() {
  absl::StatusOr<int64_t> pages = options_.kv_pages;
  if (options_.choose_kv_pages) pages = options_.choose_kv_pages();
  if (!pages.ok()) return pages.status();
  absl::StatusOr<KvCache> cache =
      KvCache::Create(backend_, model_.config().decoder, *pages, options_.kv_dtype);
  if (!cache.ok()) return cache.status();
  cache_ = *std::move(cache);
  return absl::OkStatus();
}

void ModelExecutor::Impl::Launch(const StepPlan& plan) {
  CATSERVE_CHECK(std::ssize(launched_) <= PipelineDepth())
      << launched_.size() << " steps run already; collect the oldest before launching the next";
  CATSERVE_CHECK(plan.rows.size() <= options_.step_rows_max)
      << plan.rows.size() << " rows in a step of at most " << options_.step_rows_max;
  Step& step = launched_.emplace_back();
  LapTimer timer;
  WriteHistory(plan);
  for (const PageCopy& copy : plan.page_copies) cache_.CopyPage(copy.from, copy.to);
  step.times.prepare = timer.Lap();
  const std::vector<int32_t> fx_rows = Compress(plan, step.trace);
  step.times.compress = timer.Lap();
  if (!plan.rows.empty()) decoder_->Run(plan, history_, fx_, fx_rows);
  step.times.decode = timer.Lap();
  DrawSamples(plan, step);
  ScoreTokens(plan, step);
  step.submitted = backend_.Submit();
  step.times.sample = timer.Lap();
}

StepResult ModelExecutor::Impl::Collect() {
  CATSERVE_CHECK(!launched_.empty()) << "launch a step before collecting it";
  Step& step = launched_.front();
  LapTimer timer;
  backend_.Await(step.submitted);
  StepResult result;
  for (const TokenDraw& draw : step.samples) result.samples.push_back(ResultOf(draw));
  for (const TokenDraw& draw : step.scores) result.scores.push_back(ResultOf(draw));
  step.times.wait = timer.Lap();
  result.times = step.times;
  result.parts = PartsOf(backend_.part_counts());
  trace_ = std::move(step.trace);
  launched_.pop_front();
  return result;
}

void ModelExecutor::Impl::WriteHistory(const StepPlan& plan) {
  const int32_t vocab_size = model_.config().vocab_size;
  for (const TokenId token : plan.tokens) {
    CATSERVE_CHECK(token >= 0 && token < vocab_size)
        << "token " << token << " of a vocabulary of " << vocab_size << ": admission let it pass";
  }
  for (const HistoryWrite& write : plan.history_writes) {
    const std::span<const TokenId> tokens =
        std::span(plan.tokens).subspan(write.first, write.count);
    history_.Write(write.slot, write.position, tokens);
    if (prompts_ != nullptr) prompts_->Write(write.slot, write.position, tokens);
  }
}

// The fx rows that the plan's compressions went to.
std::vector<int32_t> ModelExecutor::Impl::Compress(const StepPlan& plan, StepTrace& trace) {
  if (plan.compressions.empty()) return {};
  CATSERVE_CHECK(compressor_.has_value()) << "a dense model does not compress";
  CATSERVE_CHECK(plan.compressions.size() <= options_.step_rows_max)
      << plan.compressions.size() << " compressions in a step of at most "
      << options_.step_rows_max;
  // Which of them are in line, and which beside.
  std::vector<Compression> chunks[2];
  std::vector<size_t> at[2];
  for (size_t i = 0; i < plan.compressions.size(); ++i) {
    const Compression& chunk = plan.compressions[i];
    const bool has_room = prompts_ != nullptr && std::ssize(chunks[1]) < prompts_->chunks_max();
    const int beside = has_room && prompts_->Holds(chunk) ? 1 : 0;
    chunks[beside].push_back(chunk);
    at[beside].push_back(i);
  }
  std::vector<int32_t> fx_rows(plan.compressions.size());
  const auto place = [&](int beside, const std::vector<int32_t>& rows) {
    for (size_t i = 0; i < rows.size(); ++i) fx_rows[at[beside][i]] = rows[i];
  };
  if (!chunks[1].empty()) place(1, prompts_->Start(chunks[1]));
  const CompressionOrder order = OrderByChunkSize(model_.config(), chunks[0], area_rows());
  compressor_->Run(fx_, history_, order, Decodes(plan));
  place(0, order.fx_rows);
  if (!chunks[1].empty()) prompts_->Join();
  TraceSummaries(fx_rows, trace);
  return fx_rows;
}

void ModelExecutor::Impl::TraceSummaries(std::span<const int32_t> fx_rows, StepTrace& trace) {
  if (!options_.keep_trace) return;
  const int64_t dim = fx_.row_size();
  trace.fx.resize(fx_rows.size() * dim);
  for (size_t i = 0; i < fx_rows.size(); ++i) {
    backend_.Copy(trace.fx.data() + i * dim, fx_.row<float>(fx_rows[i]), dim * SizeOf(DType::kF32));
  }
}

void ModelExecutor::Impl::DrawSamples(const StepPlan& plan, Step& step) {
  step.samples.resize(plan.samples.size());
  const size_t block = decoder_->logits_rows_max();
  for (size_t first = 0; first < plan.samples.size(); first += block) {
    const size_t count = std::min(block, plan.samples.size() - first);
    std::vector<SampleSpec> specs;
    rows_.clear();
    for (const Sample& sample : std::span(plan.samples).subspan(first, count)) {
      rows_.push_back(sample.row);
      specs.push_back(SpecOf(sample));
    }
    const TensorView logits = decoder_->Logits(rows_);
    backend_.Sample(std::span(step.samples).subspan(first, count), logits,
                    model_.config().vocab_size, specs);
    TraceLogits(logits, step.trace);
  }
}

SampleSpec ModelExecutor::Impl::SpecOf(const Sample& sample) {
  CATSERVE_CHECK(sample.params != nullptr && sample.prompt_tokens <= sample.position &&
                 history_.shape().Holds(sample.slot, sample.position, 1))
      << "sample at position " << sample.position << " of slot " << sample.slot
      << " has no place or no parameters: the plan is wrong";
  const SamplingParams& params = *sample.params;
  const int32_t generated = sample.position - sample.prompt_tokens;
  return {.temperature = params.temperature,
          .top_k = params.top_k,
          .top_p = params.top_p,
          .min_p = params.min_p,
          .repetition_penalty = params.repetition_penalty,
          .presence_penalty = params.presence_penalty,
          .frequency_penalty = params.frequency_penalty,
          .logit_bias = params.logit_bias,
          .forbidden = sample.forbidden,
          .prompt = history_.View(sample.slot, 0, sample.prompt_tokens),
          .generated = history_.View(sample.slot, sample.prompt_tokens, generated),
          .seed = params.seed,
          .choice = static_cast<uint64_t>(sample.choice),
          .position = static_cast<uint64_t>(sample.position),
          .logprobs = params.logprobs,
          .drawn_at = history_.Place(sample.slot, sample.position)};
}

void ModelExecutor::Impl::ScoreTokens(const StepPlan& plan, Step& step) {
  step.scores.resize(plan.scores.size());
  const size_t block = decoder_->logits_rows_max();
  for (size_t first = 0; first < plan.scores.size(); first += block) {
    const auto scores =
        std::span(plan.scores).subspan(first, std::min(block, plan.scores.size() - first));
    std::vector<int32_t> top_n;
    rows_.clear();
    for (const ScoreRow& score : scores) {
      rows_.push_back(score.row);
      top_n.push_back(score.top_n);
    }
    const TensorView logits = decoder_->Logits(rows_);
    for (size_t done = 0; done < scores.size();) {
      const int32_t count = ConsecutiveTokens(scores.subspan(done));
      backend_.ScoreTokens(std::span(step.scores).subspan(first + done, count),
                           logits.Rows(static_cast<int64_t>(done), count),
                           model_.config().vocab_size,
                           history_.View(scores[done].slot, scores[done].position, count),
                           std::span(top_n).subspan(done, count));
      done += count;
    }
    TraceLogits(logits, step.trace);
  }
}

void ModelExecutor::Impl::TraceLogits(const TensorView& logits, StepTrace& trace) {
  if (!options_.keep_trace) return;
  const int64_t columns = model_.config().vocab_size;
  const size_t end = trace.logits.size();
  trace.logits.resize(end + logits.rows() * columns);
  for (int64_t i = 0; i < logits.rows(); ++i) {
    backend_.Copy(trace.logits.data() + end + i * columns, logits.row<float>(i),
                  columns * SizeOf(DType::kF32));
  }
  backend_.Synchronize();  // before the vector grows and moves again
}

absl::StatusOr<std::unique_ptr<ModelExecutor>> ModelExecutor::Create(
    const Model& model, Backend& backend, const ExecutorOptions& options) {
  absl::StatusOr<std::unique_ptr<Impl>> impl = Impl::Create(model, backend, options);
  if (!impl.ok()) return impl.status();
  return std::unique_ptr<ModelExecutor>(new ModelExecutor(*std::move(impl)));
}

ModelExecutor::ModelExecutor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ModelExecutor::~ModelExecutor() = default;
void ModelExecutor::Launch(const StepPlan& plan) { impl_->Launch(plan); }
StepResult ModelExecutor::Collect() { return impl_->Collect(); }
int ModelExecutor::PipelineDepth() const { return impl_->PipelineDepth(); }
const StepTrace& ModelExecutor::trace() const { return impl_->trace(); }
int64_t ModelExecutor::kv_pages() const { return impl_->kv_pages(); }

}  // namespace catserve

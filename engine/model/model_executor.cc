#include "engine/model/model_executor.h"

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/batch_builder.h"
#include "engine/model/compressor.h"
#include "engine/model/decoder.h"
#include "engine/model/kv_cache.h"
#include "engine/model/token_history.h"
#include "engine/model/transformer.h"
#include "kernels/check.h"

namespace catserve {
namespace {

SampleResult ResultOf(const TokenDraw& draw) {
  SampleResult result{.token = {draw.id, draw.logprob}};
  for (const auto& [id, logprob] : draw.top) result.top.push_back({id, logprob});
  return result;
}

}  // namespace

class ModelExecutor::Impl {
 public:
  static absl::StatusOr<std::unique_ptr<Impl>> Create(const Model& model, Backend& backend,
                                                      const ExecutorOptions& options);

  void Launch(const StepPlan& plan);
  StepResult Collect();
  const StepTrace& trace() const { return trace_; }
  int64_t kv_pages() const { return cache_.pages(); }

 private:
  Impl(const Model& model, Backend& backend, const ExecutorOptions& options, TokenHistory history)
      : model_(model), backend_(backend), options_(options), history_(std::move(history)) {}

  absl::Status Allocate();
  absl::Status AllocateKv();
  void WriteHistory(const StepPlan& plan);
  std::vector<int32_t> Compress(const StepPlan& plan);
  void DrawSamples(const StepPlan& plan);
  void ScoreTokens(const StepPlan& plan);
  SampleSpec SpecOf(const Sample& sample) const;
  std::vector<int32_t> ScoreTargets(const StepPlan& plan);
  void TraceLogits(const TensorView& logits);

  const Model& model_;
  Backend& backend_;
  const ExecutorOptions options_;
  TokenHistory history_;
  KvCache cache_;
  std::optional<Workspace> workspace_;
  std::unique_ptr<Buffer> fx_buffer_;
  TensorView fx_;  // [step_rows_max, d]; empty for a dense model
  std::optional<Compressor> compressor_;
  std::unique_ptr<Decoder> decoder_;

  // The step launched and not yet collected.
  bool launched_ = false;
  StepTimes times_;
  std::vector<Sample> samples_;
  std::vector<TokenDraw> sample_draws_;
  std::vector<TokenDraw> score_draws_;
  std::vector<int32_t> rows_;  // scratch: rows of one block of logits
  StepTrace trace_;
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
  const int64_t rows = config.compresses()
                           ? std::max(options_.step_rows_max, config.compressor_positions())
                           : options_.step_rows_max;
  absl::StatusOr<Workspace> workspace =
      config.compresses() ? Workspace::Create(backend_, {&config.decoder, &config.compressor}, rows)
                          : Workspace::Create(backend_, {&config.decoder}, rows);
  if (!workspace.ok()) return workspace.status();
  workspace_ = *std::move(workspace);

  absl::StatusOr<std::unique_ptr<Decoder>> decoder =
      Decoder::Create(backend_, config, model_.weights(), *workspace_, cache_);
  if (!decoder.ok()) return decoder.status();
  decoder_ = *std::move(decoder);
  if (!config.compresses()) return AllocateKv();

  const int64_t fx_rows = options_.step_rows_max;
  absl::StatusOr<std::unique_ptr<Buffer>> fx =
      backend_.Allocate(fx_rows * config.decoder.dim * SizeOf(DType::kF32));
  if (!fx.ok()) return fx.status();
  fx_buffer_ = *std::move(fx);
  fx_ = {fx_buffer_->data(), DType::kF32, {fx_rows, config.decoder.dim}};
  compressor_.emplace(backend_, config, model_.weights().compressor, *workspace_);
  return AllocateKv();
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
  CATSERVE_CHECK(!launched_) << "collect the step that runs before launching the next";
  CATSERVE_CHECK(plan.rows.size() <= options_.step_rows_max)
      << plan.rows.size() << " rows in a step of at most " << options_.step_rows_max;
  launched_ = true;
  trace_ = {};
  times_ = {};
  LapTimer timer;
  WriteHistory(plan);
  for (const PageCopy& copy : plan.page_copies) cache_.CopyPage(copy.from, copy.to);
  times_.prepare = timer.Lap();
  const std::vector<int32_t> fx_rows = Compress(plan);
  times_.compress = timer.Lap();
  if (!plan.rows.empty()) decoder_->Run(plan, history_, fx_, fx_rows);
  times_.decode = timer.Lap();
  DrawSamples(plan);
  ScoreTokens(plan);
  backend_.Submit();
  times_.sample = timer.Lap();
}

StepResult ModelExecutor::Impl::Collect() {
  CATSERVE_CHECK(launched_) << "launch a step before collecting it";
  launched_ = false;
  LapTimer timer;
  backend_.Synchronize();
  StepResult result;
  for (size_t i = 0; i < samples_.size(); ++i) {
    history_.Write(samples_[i].slot, samples_[i].position, {&sample_draws_[i].id, 1});
    result.samples.push_back(ResultOf(sample_draws_[i]));
  }
  for (const TokenDraw& draw : score_draws_) result.scores.push_back(ResultOf(draw));
  times_.sample += timer.Lap();
  result.times = times_;
  return result;
}

void ModelExecutor::Impl::WriteHistory(const StepPlan& plan) {
  const int32_t vocab_size = model_.config().vocab_size;
  for (const TokenId token : plan.tokens) {
    CATSERVE_CHECK(token >= 0 && token < vocab_size)
        << "token " << token << " of a vocabulary of " << vocab_size << ": admission let it pass";
  }
  for (const HistoryWrite& write : plan.history_writes) {
    history_.Write(write.slot, write.position,
                   std::span(plan.tokens).subspan(write.first, write.count));
  }
}

// The fx rows that the plan's compressions went to.
std::vector<int32_t> ModelExecutor::Impl::Compress(const StepPlan& plan) {
  if (plan.compressions.empty()) return {};
  CATSERVE_CHECK(compressor_.has_value()) << "a dense model does not compress";
  CATSERVE_CHECK(plan.compressions.size() <= options_.step_rows_max)
      << plan.compressions.size() << " compressions in a step of at most "
      << options_.step_rows_max;
  const CompressionOrder order = OrderByChunkSize(plan.compressions);
  compressor_->Run(fx_.Rows(0, order.chunks.size()), history_, order.chunks);
  if (options_.keep_trace) {
    const int64_t dim = fx_.row_size();
    trace_.fx.resize(order.fx_rows.size() * dim);
    for (size_t i = 0; i < order.fx_rows.size(); ++i) {
      backend_.Copy(trace_.fx.data() + i * dim, fx_.row<float>(order.fx_rows[i]),
                    dim * SizeOf(DType::kF32));
    }
  }
  return order.fx_rows;
}

void ModelExecutor::Impl::DrawSamples(const StepPlan& plan) {
  samples_ = plan.samples;
  sample_draws_.assign(samples_.size(), {});
  const size_t block = decoder_->logits_rows_max();
  for (size_t first = 0; first < samples_.size(); first += block) {
    const size_t count = std::min(block, samples_.size() - first);
    std::vector<SampleSpec> specs;
    rows_.clear();
    for (const Sample& sample : std::span(samples_).subspan(first, count)) {
      rows_.push_back(sample.row);
      specs.push_back(SpecOf(sample));
    }
    const TensorView logits = decoder_->Logits(rows_);
    backend_.Sample(std::span(sample_draws_).subspan(first, count), logits,
                    model_.config().vocab_size, specs);
    TraceLogits(logits);
  }
}

SampleSpec ModelExecutor::Impl::SpecOf(const Sample& sample) const {
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
          .logprobs = params.logprobs};
}

void ModelExecutor::Impl::ScoreTokens(const StepPlan& plan) {
  score_draws_.assign(plan.scores.size(), {});
  if (plan.scores.empty()) return;
  const std::vector<int32_t> targets = ScoreTargets(plan);
  const size_t block = decoder_->logits_rows_max();
  for (size_t first = 0; first < plan.scores.size(); first += block) {
    const size_t count = std::min(block, plan.scores.size() - first);
    std::vector<int32_t> top_n;
    rows_.clear();
    for (const ScoreRow& score : std::span(plan.scores).subspan(first, count)) {
      rows_.push_back(score.row);
      top_n.push_back(score.top_n);
    }
    const TensorView logits = decoder_->Logits(rows_);
    backend_.ScoreTokens(std::span(score_draws_).subspan(first, count), logits,
                         model_.config().vocab_size, std::span(targets).subspan(first, count),
                         top_n);
    TraceLogits(logits);
  }
}

// The tokens that the scores ask about, read in as few copies as their order allows.
std::vector<int32_t> ModelExecutor::Impl::ScoreTargets(const StepPlan& plan) {
  std::vector<int32_t> targets(plan.scores.size());
  for (size_t first = 0, next = 0; first < targets.size(); first = next) {
    const ScoreRow& start = plan.scores[first];
    next = first + 1;
    while (next < targets.size() && plan.scores[next].slot == start.slot &&
           plan.scores[next].position == start.position + static_cast<int32_t>(next - first)) {
      ++next;
    }
    history_.Read(std::span(targets).subspan(first, next - first), start.slot, start.position);
  }
  backend_.Synchronize();
  return targets;
}

void ModelExecutor::Impl::TraceLogits(const TensorView& logits) {
  if (!options_.keep_trace) return;
  const int64_t columns = model_.config().vocab_size;
  const size_t end = trace_.logits.size();
  trace_.logits.resize(end + logits.rows() * columns);
  for (int64_t i = 0; i < logits.rows(); ++i) {
    backend_.Copy(trace_.logits.data() + end + i * columns, logits.row<float>(i),
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
const StepTrace& ModelExecutor::trace() const { return impl_->trace(); }
int64_t ModelExecutor::kv_pages() const { return impl_->kv_pages(); }

}  // namespace catserve

#include "engine/model/decoder.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace catserve {
namespace {

size_t TableCount(ModelKind kind) {
  if (kind == ModelKind::kDense) return kTokenTable + 1;
  return kind == ModelKind::kCatFixed ? kFirstTable + 1 : kSeparatorTable + 1;
}

}  // namespace

Decoder::Decoder(Backend& backend, const ModelConfig& config, const ModelWeights& weights,
                 const Workspace& workspace, const KvCache& cache)
    : backend_(backend),
      config_(config),
      weights_(weights),
      workspace_(workspace),
      cache_(cache),
      transformer_(backend, config.decoder, weights.stack) {}

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(Backend& backend,
                                                         const ModelConfig& config,
                                                         const ModelWeights& weights,
                                                         const Workspace& workspace,
                                                         const KvCache& cache) {
  std::unique_ptr<Decoder> decoder(new Decoder(backend, config, weights, workspace, cache));
  const int64_t rows = backend.PaddedRows(decoder->logits_rows_max());
  absl::StatusOr<std::unique_ptr<Buffer>> normed =
      backend.Allocate(rows * config.decoder.dim * SizeOf(DType::kF32));
  if (!normed.ok()) return normed.status();
  decoder->normed_ = *std::move(normed);
  if (const DType type = weights.output->activations(); type != DType::kF32) {
    absl::StatusOr<std::unique_ptr<Buffer>> narrow =
        backend.Allocate(rows * config.decoder.dim * SizeOf(type));
    if (!narrow.ok()) return narrow.status();
    decoder->narrow_ = *std::move(narrow);
  }
  absl::StatusOr<std::unique_ptr<Buffer>> logits =
      backend.Allocate(rows * config.padded_vocab_size * SizeOf(DType::kF32));
  if (!logits.ok()) return logits.status();
  decoder->logits_ = *std::move(logits);
  return decoder;
}

int64_t Decoder::logits_rows_max() const { return std::min(kLogitsRowsMax, workspace_.rows_max()); }

void Decoder::Run(const StepPlan& plan, const TokenHistory& history, const TensorView& fx,
                  std::span<const int32_t> fx_rows) {
  for (const PageId page : plan.page_ids) {
    CATSERVE_CHECK(page >= 0 && page < cache_.pages())
        << "page " << page << " of " << cache_.pages() << ": the plan is wrong";
  }
  BuildDecoderBatch(config_, history.shape(), plan, fx_rows, &batch_);
  auto rows = static_cast<int64_t>(plan.rows.size());
  const bool recurs = Decodes(plan);
  if (recurs) PadDecoderBatch(rows = backend_.PaddedRows(rows), &batch_);
  const Activations& a = activations_ = workspace_.For(transformer_.layout(), rows);
  backend_.BeginPart({recurs ? PartKind::kDecoder : PartKind::kOther, static_cast<int32_t>(rows)});
  const TensorView tables[] = {weights_.tokens.view, fx, weights_.firsts.view,
                               weights_.separator.view};  // by DecoderTable
  backend_.Gather(a.x, {tables, TableCount(config_.kind)}, history.flat(), batch_.inputs);
  const int64_t query_width = int64_t{config_.decoder.heads} * config_.decoder.head_dim;
  transformer_.Run(
      a, [&](int32_t layer, const HeadSpec& heads, const TensorView& out, const TensorView& qkv) {
        const KvLayer& kv = cache_.layer(layer);
        backend_.PrepareHeads(qkv, heads, batch_.positions, &kv, batch_.entries);
        backend_.PagedAttention(out, qkv.Columns(0, query_width), heads, kv, batch_.attention,
                                plan.page_ids);
      });
}

TensorView Decoder::Logits(std::span<const int32_t> rows) {
  const int64_t count = static_cast<int64_t>(rows.size());
  CATSERVE_CHECK(count <= logits_rows_max()) << "logits of " << count << " rows at once";
  logits_rows_.clear();
  for (const int32_t row : rows) {
    CATSERVE_CHECK(row >= 0 && row < activations_.x.rows())
        << "logits of row " << row << ", the plan has " << activations_.x.rows();
    logits_rows_.push_back({0, row, false});
  }
  const int64_t padded = backend_.PaddedRows(count);
  logits_rows_.resize(static_cast<size_t>(padded), {.table = 0, .index = 0});
  const TensorView rows_x(normed_->data(), DType::kF32, {padded, config_.decoder.dim});
  TensorView normed = rows_x;  // in place, or narrowed
  if (narrow_ != nullptr) {
    normed = {narrow_->data(), weights_.output->activations(), {padded, config_.decoder.dim}};
  }
  const TensorView logits(logits_->data(), DType::kF32, {padded, config_.padded_vocab_size});
  backend_.BeginPart({PartKind::kOutput, static_cast<int32_t>(padded)});
  backend_.Gather(rows_x, {&activations_.x, 1}, {}, logits_rows_);
  transformer_.Norm(normed, rows_x);
  backend_.MatMul(logits, normed, *weights_.output, false);
  return logits.Rows(0, count);
}

}  // namespace catserve

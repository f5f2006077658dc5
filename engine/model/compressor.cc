#include "engine/model/compressor.h"

#include <iterator>

#include "kernels/check.h"

namespace catserve {

Compressor::Compressor(Backend& backend, const ModelConfig& config,
                       const CompressorWeights& weights, const Workspace& workspace)
    : backend_(backend),
      config_(config),
      weights_(weights),
      workspace_(workspace),
      transformer_(backend, config.compressor, weights.stack) {}

void Compressor::Run(const TensorView& fx, const TokenHistory& history,
                     const CompressionOrder& order, bool recurs) {
  for (size_t first = 0; first < order.chunks.size();) {
    const std::span<const Compression> rest = std::span(order.chunks).subspan(first);
    const size_t count = ChunksThatFit(config_, rest, workspace_.rows_max());
    const bool alone = recurs && count == order.chunks.size();
    BuildCompressorBatch(config_, history.shape(), rest.first(count), &batch_);
    RunLayers(history, alone);
    std::span<const GatherRow> features = batch_.features;
    for (const CompressorBatch::Group& group : batch_.groups) {
      const int64_t row = order.rows[first];
      const size_t tokens = static_cast<size_t>(group.chunks) * group.chunk_size;
      Project(fx.Rows(row, fx.rows() - row), group, features.first(tokens), alone);
      features = features.subspan(tokens);
      first += group.chunks;
    }
  }
}

void Compressor::RunLayers(const TokenHistory& history, bool recurs) {
  if (recurs) PadCompressorBatch(backend_.PaddedRows(std::ssize(batch_.inputs)), &batch_);
  const int64_t rows = std::ssize(batch_.inputs);
  const Activations a = workspace_.For(transformer_.layout(), rows);
  backend_.BeginPart(
      {recurs ? PartKind::kCompressor : PartKind::kOther, static_cast<int32_t>(rows)});
  const TensorView tables[] = {weights_.tokens.view, weights_.positions.view, weights_.levels.view};
  const size_t table_count = weights_.levels.view.rank == 0 ? 2 : 3;
  backend_.Gather(a.x, {tables, table_count}, history.flat(), batch_.inputs);
  transformer_.Run(
      a, [&](int32_t, const HeadSpec& heads, const TensorView& out, const TensorView& qkv) {
        backend_.PrepareHeads(qkv, heads, batch_.positions, nullptr, {});
        backend_.BlockAttention(out, qkv, heads, batch_.blocks);
      });
  x_ = a.x;
}

// The chunks of one size: from their tokens' rows to the first rows of fx.
void Compressor::Project(const TensorView& fx, const CompressorBatch::Group& group,
                         std::span<const GatherRow> features, bool recurs) {
  const auto projection = weights_.projections.find(group.chunk_size);
  CATSERVE_CHECK(projection != weights_.projections.end())
      << "chunk size " << group.chunk_size << " is not offered: the plan is wrong";
  const int64_t padded = backend_.PaddedRows(group.chunks);
  recurs = recurs && padded * group.chunk_size <= workspace_.rows_max();
  const int64_t chunks = recurs ? padded : group.chunks;
  const int64_t tokens = chunks * group.chunk_size;
  features_.assign(features.begin(), features.end());
  features_.resize(static_cast<size_t>(tokens), {.table = 0, .index = 0});
  backend_.BeginPart({recurs ? PartKind::kCompressor : PartKind::kOther,
                      static_cast<int32_t>(chunks), group.chunk_size});
  // Behind x whatever its rows, so in one place for all batches; nothing else is used any more.
  const Activations widest = workspace_.For(transformer_.layout(), workspace_.rows_max());
  const TensorView z = widest.z.Rows(0, tokens);  // [tokens, e]
  backend_.Gather(z, {&x_, 1}, {}, features_);
  const int64_t dim = config_.compressor.dim;
  const Matrix& w = *projection->second;
  TensorView normed = z;  // in place, or narrowed over h
  if (w.activations() != DType::kF32) {
    normed = TensorView(widest.h.data, w.activations(), {tokens, dim});
  }
  transformer_.Norm(normed, z);
  const TensorView chunks_z(normed.data, normed.dtype, {chunks, group.chunk_size * dim});
  backend_.MatMul(fx.Rows(0, chunks), chunks_z, w, false);
}

}  // namespace catserve

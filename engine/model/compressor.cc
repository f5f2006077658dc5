#include "engine/model/compressor.h"

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
                     std::span<const Compression> chunks) {
  for (size_t first = 0; first < chunks.size();) {
    const std::span<const Compression> rest = chunks.subspan(first);
    const size_t count = ChunksThatFit(config_, rest, workspace_.rows_max());
    RunBatch(fx.Rows(first, count), history, rest.first(count));
    first += count;
  }
}

void Compressor::RunBatch(const TensorView& fx, const TokenHistory& history,
                          std::span<const Compression> chunks) {
  BuildCompressorBatch(config_, history.shape(), chunks, &batch_);
  const int64_t dim = config_.compressor.dim;
  const Activations a = workspace_.For(config_.compressor, batch_.inputs.size());
  const TensorView tables[] = {weights_.tokens.view, weights_.positions.view, weights_.levels.view};
  const size_t table_count = weights_.levels.view.rank == 0 ? 2 : 3;
  backend_.Gather(a.x, {tables, table_count}, history.flat(), batch_.inputs);
  transformer_.Run(
      a, [&](int32_t, const HeadSpec& heads, const TensorView& out, const TensorView& qkv) {
        backend_.PrepareHeads(qkv, heads, batch_.positions, nullptr, {});
        backend_.BlockAttention(out, qkv, heads, batch_.blocks);
      });

  const TensorView z = a.h.Rows(0, batch_.features.size());  // [tokens, e]
  backend_.Gather(z, {&a.x, 1}, {}, batch_.features);
  transformer_.Norm(z, z);
  int64_t chunk = 0;
  int64_t token = 0;
  for (const CompressorBatch::Group& group : batch_.groups) {
    const auto projection = weights_.projections.find(group.chunk_size);
    CATSERVE_CHECK(projection != weights_.projections.end())
        << "chunk size " << group.chunk_size << " is not offered: the plan is wrong";
    const TensorView chunks_z(z.row<float>(token), DType::kF32,
                              {group.chunks, group.chunk_size * dim});
    backend_.MatMul(fx.Rows(chunk, group.chunks), chunks_z, *projection->second, false);
    chunk += group.chunks;
    token += int64_t{group.chunks} * group.chunk_size;
  }
}

}  // namespace catserve

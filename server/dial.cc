#include "server/dial.h"

#include <algorithm>

namespace catserve {
namespace {

// Operations of one row that sees `entries` entries, through every layer of a stack: the products
// with wqkv, wo, fc_1, fc_2 and proj, and attention's two.
double RowOperations(const StackDescription& stack, double entries) {
  const double width = double{1.0} * stack.heads * stack.head_dim;
  const double kv_width = double{1.0} * stack.kv_heads * stack.head_dim;
  const double weights =
      stack.dim * (2 * width + 2 * kv_width) + 3.0 * stack.dim * stack.feed_forward;
  return stack.layers * (2 * weights + 4 * entries * width);
}

double OutputOperations(const ModelGeometry& model, int32_t dim) {
  return 2.0 * dim * model.vocab_size;
}

}  // namespace

double KvBytesPer1000Tokens(const ModelGeometry& model, int32_t chunk_size) {
  const double tokens_per_entry = model.compresses() ? chunk_size : 1;
  return 1000.0 / tokens_per_entry * static_cast<double>(model.bytes_per_entry);
}

double DecodeOperations(const ModelDescription& model, int32_t chunk_size) {
  const ModelGeometry& geometry = model.geometry;
  const double output = OutputOperations(geometry, model.decoder.dim);
  const double half = geometry.block_size / 2.0;
  if (!geometry.compresses()) return RowOperations(model.decoder, half) + output;
  const double chunk = chunk_size;
  const double separator = SeparatorEntries(geometry);
  const double entries = half / chunk + 1 + separator + (chunk - 1) / 2;
  const double rows_per_token = (chunk + separator) / chunk;
  // The compressor sees a whole chunk and its learned rows at once (see the golden README).
  const double compressor_rows = chunk + 1 + separator;
  const double compressor =
      compressor_rows * RowOperations(model.compressor, compressor_rows) / chunk;
  const double projection = 2.0 * model.decoder.dim * model.compressor.dim;
  return rows_per_token * RowOperations(model.decoder, entries) + output + compressor + projection;
}

double DenseDecodeOperations(const ServedModel& model) {
  StackDescription stack = model.description.decoder;
  if (model.card.dense_twin.has_value()) {
    const DenseTwin& twin = *model.card.dense_twin;
    // Its feed-forward is not on the card: as wide as the decoder's for its width.
    constexpr double kFeedForwardMax = 1 << 30;
    const double feed_forward =
        std::min(1.0 * stack.feed_forward * twin.dim / stack.dim, kFeedForwardMax);
    stack = StackDescription{twin.dim,      twin.layers,   twin.dim / twin.head_dim,
                             twin.kv_heads, twin.head_dim, static_cast<int32_t>(feed_forward)};
  }
  const ModelGeometry& geometry = model.description.geometry;
  return RowOperations(stack, geometry.block_size / 2.0) + OutputOperations(geometry, stack.dim);
}

}  // namespace catserve

#include "engine/model_description.h"

namespace catserve {
namespace {

double WeightOperations(const StackDescription& stack) {
  const double heads = 2.0 * (stack.heads + stack.kv_heads) * stack.head_dim;
  return stack.layers * stack.dim * (heads + 3.0 * stack.feed_forward);
}

}  // namespace

double CompressorTokenRows(const ModelDescription& model) {
  if (!model.geometry.compresses()) return 0;
  const double projection = 1.0 * model.compressor.dim * model.decoder.dim;
  return (WeightOperations(model.compressor) + projection) / WeightOperations(model.decoder);
}

}  // namespace catserve

#include "engine/geometry.h"

#include <algorithm>

namespace catserve {

bool ModelGeometry::Offers(int32_t chunk_size) const {
  return std::find(chunk_sizes.begin(), chunk_sizes.end(), chunk_size) != chunk_sizes.end();
}

int32_t SeparatorEntries(const ModelGeometry& model) {
  return model.kind == ModelKind::kCat ? 1 : 0;
}

int64_t EntriesAtRest(const ModelGeometry& model, int32_t chunk_size, int64_t tokens) {
  if (!model.compresses()) return tokens;
  return tokens / chunk_size + 1 + SeparatorEntries(model) + tokens % chunk_size;
}

int64_t PeakEntries(const ModelGeometry& model, int32_t chunk_size, int64_t tokens) {
  if (!model.compresses()) return tokens;
  // The fullest moments are just before a chunk closes and at the very end.
  const int64_t last_full = (tokens + 1) / chunk_size * chunk_size - 1;
  const int64_t at_end = EntriesAtRest(model, chunk_size, tokens);
  return last_full < 0 ? at_end : std::max(at_end, EntriesAtRest(model, chunk_size, last_full));
}

int64_t PageBytes(const ModelGeometry& model, int64_t entries) {
  return PagesFor(entries) * kPageEntries * model.bytes_per_entry;
}

}  // namespace catserve

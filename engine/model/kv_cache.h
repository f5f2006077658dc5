// The KV memory of a model: all pages of all layers, taken at start. Which entry lies where is the
// plan's business; nothing here knows sequences or chunks.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/config.h"
#include "engine/step.h"
#include "kernels/backend.h"

namespace catserve {

class KvCache {
 public:
  // dtype: one that the backend holds. REQUIRES: backend outlives the cache. Errors:
  // INVALID_ARGUMENT, RESOURCE_EXHAUSTED with the numbers.
  static absl::StatusOr<KvCache> Create(Backend& backend, const StackConfig& stack, int64_t pages,
                                        DType dtype);

  // Copies a page's entries in every layer.
  void CopyPage(PageId from, PageId to);

  const KvLayer& layer(int32_t i) const { return layers_[i]; }
  int64_t pages() const { return layers_.front().pages; }

 private:
  // Memory for every page of a layer, owned by the cache. Errors: RESOURCE_EXHAUSTED.
  absl::StatusOr<void*> Take(int64_t pages, int64_t page_bytes);

  Backend* backend_ = nullptr;
  int64_t page_bytes_ = 0;                        // of one layer, without the scales
  int64_t page_scale_bytes_ = 0;                  // of one layer: 0 but for I8
  std::vector<std::unique_ptr<Buffer>> buffers_;  // of a layer its data, then its scales
  std::vector<KvLayer> layers_;
};

}  // namespace catserve

#include "engine/model/kv_cache.h"

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace catserve {

absl::StatusOr<KvCache> KvCache::Create(Backend& backend, const StackConfig& stack, int64_t pages,
                                        DType dtype) {
  constexpr int64_t kPagesMax = int64_t{1} << 31;  // page ids are int32
  if (pages < 1 || pages >= kPagesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv_pages is ", pages, ", expected 1 to ", kPagesMax - 1));
  }
  if (!backend.HoldsKv(dtype)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "kv_dtype is ", Name(dtype), ", which the backend (", backend.Description(),
        ") does not hold; expected F32, BF16 or I8, or F8_E4M3 on a GPU of compute capability 8.9 "
        "or more"));
  }
  const int64_t heads = int64_t{2} * stack.kv_heads * kPageEntries;  // of the entries of a page
  KvCache cache;
  cache.backend_ = &backend;
  cache.page_bytes_ = heads * stack.head_dim * SizeOf(dtype);
  cache.page_scale_bytes_ = heads * KvScaleBytes(dtype);
  for (int32_t i = 0; i < stack.layers; ++i) {
    absl::StatusOr<void*> data = cache.Take(pages, cache.page_bytes_);
    if (!data.ok()) return data.status();
    KvLayer layer{.data = *data,
                  .dtype = dtype,
                  .pages = pages,
                  .kv_heads = stack.kv_heads,
                  .head_dim = stack.head_dim};
    if (KvScaleBytes(dtype) > 0) {
      absl::StatusOr<void*> scales = cache.Take(pages, cache.page_scale_bytes_);
      if (!scales.ok()) return scales.status();
      layer.scales = static_cast<uint16_t*>(*scales);
    }
    cache.layers_.push_back(layer);
  }
  return cache;
}

absl::StatusOr<void*> KvCache::Take(int64_t pages, int64_t page_bytes) {
  absl::StatusOr<std::unique_ptr<Buffer>> buffer = backend_->Allocate(pages * page_bytes);
  if (!buffer.ok()) {
    return absl::Status(buffer.status().code(),
                        absl::StrCat("KV memory of ", pages, " pages, ", page_bytes,
                                     " bytes of each in each layer: ", buffer.status().message()));
  }
  buffers_.push_back(*std::move(buffer));
  return buffers_.back()->data();
}

void KvCache::CopyPage(PageId from, PageId to) {
  for (const KvLayer& layer : layers_) {
    auto* const data = static_cast<std::byte*>(layer.data);
    backend_->Copy(data + to * page_bytes_, data + from * page_bytes_, page_bytes_);
    if (layer.scales == nullptr) continue;
    auto* const scales = reinterpret_cast<std::byte*>(layer.scales);
    backend_->Copy(scales + to * page_scale_bytes_, scales + from * page_scale_bytes_,
                   page_scale_bytes_);
  }
}

}  // namespace catserve

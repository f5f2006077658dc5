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
  if (dtype != DType::kF32 && dtype != DType::kBF16) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv_dtype is ", Name(dtype), ", expected F32 or BF16"));
  }
  const int64_t page_bytes =
      int64_t{2} * stack.kv_heads * kPageEntries * stack.head_dim * SizeOf(dtype);
  KvCache cache;
  cache.backend_ = &backend;
  cache.page_bytes_ = page_bytes;
  for (int32_t i = 0; i < stack.layers; ++i) {
    absl::StatusOr<std::unique_ptr<Buffer>> buffer = backend.Allocate(pages * page_bytes);
    if (!buffer.ok()) {
      return absl::Status(
          buffer.status().code(),
          absl::StrCat("KV memory of ", pages, " pages x ", stack.layers, " layers x ", page_bytes,
                       " bytes: ", buffer.status().message()));
    }
    cache.layers_.push_back({.data = (*buffer)->data(),
                             .dtype = dtype,
                             .pages = pages,
                             .kv_heads = stack.kv_heads,
                             .head_dim = stack.head_dim});
    cache.buffers_.push_back(*std::move(buffer));
  }
  return cache;
}

void KvCache::CopyPage(PageId from, PageId to) {
  for (const KvLayer& layer : layers_) {
    auto* const data = static_cast<std::byte*>(layer.data);
    backend_->Copy(data + to * page_bytes_, data + from * page_bytes_, page_bytes_);
  }
}

}  // namespace catserve

// Random keys and values spread over pages in random order, everything unused poisoned with NaN.
#pragma once

#include <array>
#include <cmath>
#include <cstring>

#include "kernels/kv_page.h"
#include "tests/kernels/device.h"
#include "tests/kernels/kv_types.h"

namespace catserve::testing {

struct AttentionShape {
  int32_t heads = 2;
  int32_t kv_heads = 2;
  int32_t head_dim = 16;
  DType dtype = DType::kF32;
};

inline HeadSpec SpecOf(const AttentionShape& shape) {
  return {.heads = shape.heads, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim};
}

// Logical entries of one sequence, and a KV memory that holds them as lists of pages: each call of
// Place puts a range of the entries into fresh pages.
class AttentionScene {
 public:
  AttentionScene(Backend& backend, const AttentionShape& shape, int32_t entries, uint32_t seed)
      : AttentionScene(backend, shape, Random(seed), entries) {}

  // A page list holding logical entries [first, first + count); returns where it starts in
  // page_ids().
  int32_t Place(int32_t first, int32_t count) {
    EXPECT_LE(At(first + count, 0), static_cast<int64_t>(keys_.size())) << "no such entries";
    const int32_t start = static_cast<int32_t>(page_ids_.size());
    for (int32_t e = 0; e < count; ++e) {
      if (e % kKvPageEntries == 0) page_ids_.push_back(free_pages_.at(used_++));
      for (int32_t h = 0; h < shape_.kv_heads; ++h) {
        Put(page_ids_.back(), h, e % kKvPageEntries, first + e);
      }
    }
    kv_.Write(pool_.data(), static_cast<int64_t>(pool_.size()));
    scales_.Write(pool_scales_.data(), std::ssize(pool_scales_) * 2);
    return start;
  }

  KvLayer layer() const {
    const bool scaled = KvScaleBytes(shape_.dtype) > 0;
    return {.data = kv_.view().data,
            .dtype = shape_.dtype,
            .pages = kPages,
            .kv_heads = shape_.kv_heads,
            .head_dim = shape_.head_dim,
            .scales = scaled ? static_cast<uint16_t*>(scales_.view().data) : nullptr};
  }
  const std::vector<int32_t>& page_ids() const { return page_ids_; }

  // The double-precision answer for query head `head` with query q, over entries
  // [first, first + n).
  std::vector<double> Expect(const float* q, int32_t head, int32_t n, int32_t first = 0) const {
    const int32_t kv_head = head / (shape_.heads / shape_.kv_heads);
    const int64_t dim = shape_.head_dim;
    std::vector<double> scores(n), out(dim, 0.0);
    double max = -INFINITY, sum = 0;
    for (int32_t e = 0; e < n; ++e) {
      for (int64_t d = 0; d < dim; ++d) {
        scores[e] += double{q[d]} * keys_[At(first + e, kv_head) + d];
      }
      scores[e] /= std::sqrt(static_cast<double>(dim));
      max = std::max(max, scores[e]);
    }
    for (double& score : scores) sum += score = std::exp(score - max);
    for (int32_t e = 0; e < n; ++e) {
      for (int64_t d = 0; d < dim; ++d) {
        out[d] += scores[e] / sum * values_[At(first + e, kv_head) + d];
      }
    }
    return out;
  }

 private:
  static constexpr int32_t kPages = 96;

  AttentionScene(Backend& backend, const AttentionShape& shape, Random random, int32_t entries)
      : shape_(shape),
        given_{random.Normal(int64_t{entries} * shape.kv_heads * shape.head_dim),
               random.Normal(int64_t{entries} * shape.kv_heads * shape.head_dim)},
        keys_(Stored(given_[kKey])),
        values_(Stored(given_[kValue])),
        free_pages_(random.Permutation(kPages)),
        kv_(backend, shape.dtype, {kPages, shape.kv_heads, 2, kKvPageEntries * shape.head_dim}),
        scales_(backend, DType::kBF16, {kPages, shape.kv_heads, 2, kKvPageEntries}) {
    pool_.assign(kv_.view().size() * SizeOf(shape.dtype), 0xff);  // a NaN in the float formats
    pool_scales_.assign(scales_.view().size(), 0xffff);           // the same
  }

  // What is read of values that were stored, head by head.
  std::vector<float> Stored(const std::vector<float>& values) const {
    std::vector<float> stored;
    for (size_t i = 0; i < values.size(); i += shape_.head_dim) {
      const auto head = AsStored(shape_.dtype, std::span(values).subspan(i, shape_.head_dim));
      stored.insert(stored.end(), head.begin(), head.end());
    }
    return stored;
  }

  int64_t At(int32_t e, int32_t kv_head) const {
    return (int64_t{e} * shape_.kv_heads + kv_head) * shape_.head_dim;
  }

  void Put(int32_t page, int32_t kv_head, int64_t slot, int32_t e) {
    const int64_t bytes = SizeOf(shape_.dtype);
    for (int64_t part = 0; part < 2; ++part) {
      const float* from = given_[part].data() + At(e, kv_head);
      const int64_t block = (int64_t{page} * shape_.kv_heads + kv_head) * 2 + part;
      const int64_t at = block * kKvPageEntries + slot;
      const uint16_t scale =
          ScaleBitsOf(shape_.dtype, {from, static_cast<size_t>(shape_.head_dim)});
      if (bytes == 1) pool_scales_[at] = scale;
      for (int64_t d = 0; d < shape_.head_dim; ++d) {
        const uint16_t narrow = BF16FromFloat(from[d]);
        const uint8_t eight = EightBits(shape_.dtype, from[d], FloatFromBF16(scale));
        const void* source = bytes == 4   ? static_cast<const void*>(&from[d])
                             : bytes == 2 ? static_cast<const void*>(&narrow)
                                          : &eight;
        std::memcpy(pool_.data() + (at * shape_.head_dim + d) * bytes, source, bytes);
      }
    }
  }

  AttentionShape shape_;
  std::array<std::vector<float>, 2> given_;  // by part: [entries, kv_heads, head_dim]
  std::vector<float> keys_;                  // the same, as stored
  std::vector<float> values_;
  std::vector<int32_t> free_pages_;
  int32_t used_ = 0;
  std::vector<int32_t> page_ids_;
  std::vector<uint8_t> pool_;
  std::vector<uint16_t> pool_scales_;
  Tensor kv_;
  Tensor scales_;
};

}  // namespace catserve::testing

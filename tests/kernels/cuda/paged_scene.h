// A batch of attention for emulated kernels: rows of every kind over pages in random order, with
// everything that no row may read poisoned, and what the CPU's twin makes of the same entries.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/kv_scale.h"
#include "tests/kernels/cuda/emulated.h"

namespace catserve::cuda::testing {

template <typename T, typename KV>
class PagedScene {
 public:
  PagedScene(const AttentionLayer& layer, uint32_t seed)
      : layer_(layer),
        random_(seed),
        free_pages_(random_.Permutation(kPages)),
        pool_(Poisoned<KV>(kPages * PageElements())),
        scales_(Poisoned<BF16>(kPages * PageElements() / layer.head_dim)),
        decoded_(Poisoned<float>(kPages * PageElements())),
        original_(decoded_) {}

  // Rows that see the first `entries`, `entries` + 1, ... of one new list, after the same prefix.
  void Add(int32_t entries, int32_t rows = 1, int32_t prefix = 0) {
    AttentionRow row{.prefix_entries = prefix, .entries = entries};
    row.prefix_page = Place(prefix);
    row.page = Place(entries + rows - 1);
    for (int32_t i = 0; i < rows; ++i, ++row.entries) rows_.push_back(row);
  }

  // To be called once all rows are there.
  void MakeQueries() {
    q_ = Narrow<T>(random_.Normal(Size()));
    out_ = Poisoned<T>(Size());
  }

  const std::vector<AttentionRow>& rows() const { return rows_; }
  std::vector<T>& out() { return out_; }

  // All but the work lists.
  PagedAttentionArgs Args() {
    return {.q = q_.data(),
            .out = out_.data(),
            .type = kTypeOf<T>,
            .q_stride = Width(),
            .out_stride = Width(),
            .kv = {pool_.data(), scales_.data(), layer_.kv_heads, layer_.head_dim},
            .page_ids = page_ids_.data(),
            .heads = layer_.heads,
            .scale_log2 = 1.44269504f / std::sqrt(static_cast<float>(layer_.head_dim))};
  }

  // The CPU's answer over the entries as they are stored, or as they were before that.
  std::vector<float> Want() { return Twin(decoded_); }
  std::vector<float> WantOfOriginal() { return Twin(original_); }

  int64_t Width() const { return int64_t{layer_.heads} * layer_.head_dim; }
  int64_t Size() const { return static_cast<int64_t>(rows_.size()) * Width(); }

 private:
  static constexpr int32_t kPages = 160;

  int64_t PageElements() const {
    return int64_t{layer_.kv_heads} * 2 * kPageEntries * layer_.head_dim;
  }

  int32_t Place(int32_t entries) {
    const auto start = static_cast<int32_t>(page_ids_.size());
    for (int32_t e = 0; e < entries; ++e) {
      if (e % kPageEntries == 0) page_ids_.push_back(free_pages_.at(used_++));
      for (int32_t head = 0; head < layer_.kv_heads; ++head) {
        Put(page_ids_.back(), head, kKey, e % kPageEntries);
        Put(page_ids_.back(), head, kValue, e % kPageEntries);
      }
    }
    return start;
  }

  void Put(int32_t page, int32_t head, KvPart part, int32_t entry) {
    const KvSlab slab{.kv_heads = layer_.kv_heads, .head_dim = layer_.head_dim};
    const int64_t index = EntryIndex(slab, page, head, part, entry);
    const std::vector<float> numbers = random_.Normal(layer_.head_dim);
    float scale = 1.0f;
    if constexpr (kHasScale<KV>) {
      float largest = 0;
      for (const float number : numbers) largest = std::max(largest, std::abs(number));
      scales_[index] = EntryScale<KV>(largest);
      scale = ToFloat(scales_[index]);
    }
    for (int32_t d = 0; d < layer_.head_dim; ++d) {
      const int64_t at = index * layer_.head_dim + d;
      pool_[at] = FromFloat<KV>(numbers[d] / scale);
      decoded_[at] = ToFloat(pool_[at]) * scale;
      original_[at] = numbers[d];
    }
  }

  std::vector<float> Twin(const std::vector<float>& entries) {
    const auto cpu = ::catserve::testing::Make("cpu-reference", 1);
    const auto count = static_cast<int64_t>(rows_.size());
    const Tensor kv(*cpu, {kPages, PageElements()}, entries);
    const Tensor q(*cpu, {count, Width()}, Widen(q_));
    const Tensor out(*cpu, {count, Width()});
    cpu->PagedAttention(
        out, q, {.heads = layer_.heads, .kv_heads = layer_.kv_heads, .head_dim = layer_.head_dim},
        {kv.view().data, DType::kF32, kPages, layer_.kv_heads, layer_.head_dim}, rows_, page_ids_);
    return out.Read();
  }

  AttentionLayer layer_;
  Random random_;
  std::vector<int32_t> free_pages_;
  size_t used_ = 0;
  std::vector<AttentionRow> rows_;
  std::vector<int32_t> page_ids_;
  std::vector<KV> pool_;
  std::vector<BF16> scales_;
  std::vector<float> decoded_;   // the entries as stored, where there are any; else NaN
  std::vector<float> original_;  // before they were narrowed
  std::vector<T> q_;
  std::vector<T> out_;
};

}  // namespace catserve::cuda::testing

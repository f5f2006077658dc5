// How much memory a sequence of a model holds, as arithmetic on the model's shape alone.
#pragma once

#include <cstdint>
#include <vector>

namespace catserve {

enum class ModelKind : uint8_t { kCat, kCatFixed, kDense };

// Entries (one key and one value per layer) in one page of KV memory: the unit of allocation.
inline constexpr int32_t kPageEntries = 16;

// What deciding needs to know of a model. Immutable after load; a plain value.
struct ModelGeometry {
  ModelKind kind = ModelKind::kDense;
  std::vector<int32_t> chunk_sizes;  // ascending; empty for a dense model
  int32_t block_size = 0;            // most tokens in one sequence, prompt and generated together
  int32_t vocab_size = 0;            // ids are 0 <= id < vocab_size
  int64_t bytes_per_entry = 0;       // layers * 2 * kv_heads * (head_dim * element + scale) bytes

  bool compresses() const { return kind != ModelKind::kDense; }
  bool Offers(int32_t chunk_size) const;  // true if the chunk size is one of chunk_sizes
};

// Entries that every chunk's block starts with, besides its tokens: the separator of a `cat`
// model; none for `cat_fixed` and `dense`.
int32_t SeparatorEntries(const ModelGeometry& model);

// Visible entries of a sequence of `tokens` tokens at rest (golden README, section 6): per chunk
// size C, floor(n/C) + 1 summaries, the separator and n mod C open tokens; `tokens` for dense.
int64_t EntriesAtRest(const ModelGeometry& model, int32_t chunk_size, int64_t tokens);

// Most entries held at any time while a sequence grows from empty to `tokens` tokens.
int64_t PeakEntries(const ModelGeometry& model, int32_t chunk_size, int64_t tokens);

inline int64_t PagesFor(int64_t entries) { return (entries + kPageEntries - 1) / kPageEntries; }

// Bytes of KV memory that `entries` entries take, whole pages counted.
int64_t PageBytes(const ModelGeometry& model, int64_t entries);

}  // namespace catserve

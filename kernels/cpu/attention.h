// Attention over pages and within blocks: finds the entries that each row sees and deals the
// (rows, key/value head) items out to the threads. See kernels/backend.h for what each computes.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.h"
#include "kernels/cpu/crew.h"

namespace catserve::cpu {

struct Placement {
  std::span<const int32_t> positions;  // rotary position of each row
  const KvLayer* kv = nullptr;         // null: nothing is written
  std::span<const int64_t> slots;      // page * kKvPageEntries + entry of each row, or -1
};
void PrepareHeads(Crew& crew, const TensorView& qkv, const HeadSpec& spec,
                  const Placement& placement);

struct QueryRows {
  TensorView out;  // [rows, heads * head_dim]
  TensorView q;    // [rows, heads * head_dim] or wider, queries first
};
struct PagedEntries {
  const KvLayer& kv;
  std::span<const AttentionRow> rows;
  std::span<const int32_t> page_ids;
};
void PagedAttention(Crew& crew, const QueryRows& queries, const HeadSpec& spec,
                    const PagedEntries& entries);

void BlockAttention(Crew& crew, const QueryRows& queries, const HeadSpec& spec,
                    std::span<const RowBlock> blocks);

}  // namespace catserve::cpu

#include "server/usage.h"

#include <algorithm>

#include "engine/geometry.h"

namespace catserve {
namespace {

int64_t BytesOf(int64_t tokens, int64_t bytes_per_entry) {
  return PagesFor(tokens) * kPageEntries * bytes_per_entry;
}

}  // namespace

void FillBudgetChanged(const BudgetChangedEvent& change, v1::BudgetChanged& out) {
  out.set_from_chunk_size(change.from_chunk_size);
  out.set_to_chunk_size(change.to_chunk_size);
  out.set_at_token(change.at_token);
}

int64_t DenseTwinBytesPerEntry(const ServedModel& model) {
  if (!model.card.dense_twin.has_value()) return 0;
  const DenseTwin& twin = *model.card.dense_twin;
  const int64_t head_bytes = int64_t{twin.head_dim} * model.description.kv_element_bytes +
                             model.description.kv_scale_bytes;
  return int64_t{twin.layers} * 2 * twin.kv_heads * head_bytes;
}

int64_t DenseTwinBytes(const ServedModel& model, int64_t tokens) {
  return BytesOf(tokens, DenseTwinBytesPerEntry(model));
}

int64_t DenseSameWidthBytes(const ServedModel& model, int64_t tokens) {
  return BytesOf(tokens, model.description.geometry.bytes_per_entry);
}

v1::Usage ToProto(const Usage& usage, const ServedModel& model,
                  std::span<const int32_t> generated) {
  v1::Usage out;
  out.set_prompt_tokens(usage.prompt_tokens);
  out.set_cached_tokens(usage.cached_tokens);
  out.set_chunk_size(usage.chunk_size);
  out.set_chunks_compressed(usage.chunks_compressed);
  out.set_kv_bytes_peak(usage.kv_bytes_peak);
  out.set_queued_seconds(absl::ToDoubleSeconds(usage.queued));
  out.set_prefill_seconds(absl::ToDoubleSeconds(usage.prefilling));
  out.set_decode_seconds(absl::ToDoubleSeconds(usage.decoding));
  out.set_preemptions(usage.preemptions);
  for (const BudgetChangedEvent& change : usage.budget_changes) {
    FillBudgetChanged(change, *out.add_budget_changes());
  }
  int64_t twin = 0, same_width = 0;
  for (size_t choice = 0; choice < std::max<size_t>(generated.size(), 1); ++choice) {
    const int32_t tokens = choice < generated.size() ? generated[choice] : 0;
    out.set_generated_tokens(out.generated_tokens() + tokens);
    twin += DenseTwinBytes(model, int64_t{usage.prompt_tokens} + tokens);
    same_width += DenseSameWidthBytes(model, int64_t{usage.prompt_tokens} + tokens);
  }
  out.set_kv_bytes_dense_twin(twin);
  out.set_kv_bytes_dense_same_width(same_width);
  return out;
}

}  // namespace catserve

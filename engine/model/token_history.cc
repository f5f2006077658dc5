#include "engine/model/token_history.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace catserve {

absl::StatusOr<TokenHistory> TokenHistory::Create(Backend& backend, const ModelConfig& config,
                                                  int32_t slots) {
  const HistoryShape shape{.slots = slots, .positions = config.block_size + 1};
  const int32_t slots_max = INT32_MAX / shape.positions;  // flat indices are int32
  if (slots < 1 || slots > slots_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("slots is ", slots, ", expected 1 to ", slots_max));
  }
  absl::StatusOr<std::unique_ptr<Buffer>> buffer =
      backend.Allocate(int64_t{slots} * shape.positions * SizeOf(DType::kI32));
  if (!buffer.ok()) return buffer.status();
  return TokenHistory(backend, shape, *std::move(buffer));
}

TokenId* TokenHistory::At(int32_t slot, int32_t position, int64_t count) const {
  CATSERVE_CHECK(count <= shape_.positions &&
                 shape_.Holds(slot, position, static_cast<int32_t>(count)))
      << "tokens [" << position << ", +" << count << ") of slot " << slot
      << " lie outside the history: the plan is wrong";
  return static_cast<TokenId*>(buffer_->data()) + shape_.Index(slot, position);
}

void TokenHistory::Write(int32_t slot, int32_t position, std::span<const TokenId> tokens) {
  backend_->Copy(At(slot, position, tokens.size()), tokens.data(), tokens.size_bytes());
}

std::span<const TokenId> TokenHistory::View(int32_t slot, int32_t position, int32_t count) const {
  return {At(slot, position, count), static_cast<size_t>(count)};
}

TensorView TokenHistory::flat() const {
  return {buffer_->data(), DType::kI32, {int64_t{shape_.slots} * shape_.positions}};
}

}  // namespace catserve

// The token ids of every slot in device memory: written by plans and by drawn tokens, read by
// gathers, penalties and scores.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/config.h"
#include "engine/step.h"
#include "kernels/backend.h"

namespace catserve {

// Where a token lies: ids are [slots][positions], flat.
struct HistoryShape {
  int32_t slots = 0;
  int32_t positions = 0;  // block_size + 1: the token drawn when the context is full has a place

  int32_t Index(int32_t slot, int32_t position) const { return slot * positions + position; }
  bool Holds(int32_t slot, int32_t first, int32_t count) const {
    return slot >= 0 && slot < slots && first >= 0 && count >= 0 && first <= positions - count;
  }
};

class TokenHistory {
 public:
  // REQUIRES: backend outlives the history. Errors: INVALID_ARGUMENT, RESOURCE_EXHAUSTED.
  static absl::StatusOr<TokenHistory> Create(Backend& backend, const ModelConfig& config,
                                             int32_t slots);

  // Puts tokens of the host at [position, position + tokens.size()) of a slot.
  void Write(int32_t slot, int32_t position, std::span<const TokenId> tokens);

  // Tokens in device memory, for operations that read them there; and the place of one, for that
  // which writes it.
  std::span<const TokenId> View(int32_t slot, int32_t position, int32_t count) const;
  TokenId* Place(int32_t slot, int32_t position) { return At(slot, position, 1); }

  const HistoryShape& shape() const { return shape_; }
  TensorView flat() const;  // [slots * positions] I32

 private:
  TokenHistory(Backend& backend, HistoryShape shape, std::unique_ptr<Buffer> buffer)
      : backend_(&backend), shape_(shape), buffer_(std::move(buffer)) {}
  TokenId* At(int32_t slot, int32_t position, int64_t count) const;

  Backend* backend_;
  HistoryShape shape_;
  std::unique_ptr<Buffer> buffer_;
};

}  // namespace catserve

// The backend's operations on heads: lists and plans made on the host, kernels launched. Each keeps
// what it sent last, since the layers of a step give the same lists.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.h"
#include "kernels/cuda/device_context.h"
#include "kernels/cuda/operations.h"

namespace catserve::cuda {

class PrepareHeadsOp {
 public:
  explicit PrepareHeadsOp(DeviceContext& context) : context_(context) {}

  // As Backend::PrepareHeads.
  struct Placement {
    std::span<const int32_t> positions;
    const KvLayer* kv = nullptr;
    std::span<const int64_t> slots;
  };
  void Run(const TensorView& qkv, const HeadSpec& spec, const Placement& placement);

 private:
  DeviceContext& context_;
  Remembered lists_;
  const int32_t* positions_ = nullptr;
  const int64_t* slots_ = nullptr;
};

class PagedAttentionOp {
 public:
  explicit PagedAttentionOp(DeviceContext& context) : context_(context) {}

  // As Backend::PagedAttention.
  struct Entries {
    KvLayer kv;
    std::span<const AttentionRow> rows;
    std::span<const int32_t> page_ids;
  };
  void Run(const TensorView& out, const TensorView& q, const HeadSpec& spec,
           const Entries& entries);

 private:
  // The lists of one launch on the device, made anew unless they are those of the last one.
  void SendPlan(const HeadSpec& spec, const Entries& entries);

  DeviceContext& context_;
  Remembered inputs_;
  PagedAttentionArgs args_{};  // lists alone
  AttentionLaunch launch_;
  int64_t slots_ = 0;
};

class BlockAttentionOp {
 public:
  explicit BlockAttentionOp(DeviceContext& context) : context_(context) {}

  // As Backend::BlockAttention.
  void Run(const TensorView& out, const TensorView& qkv, const HeadSpec& spec,
           std::span<const RowBlock> blocks);

 private:
  DeviceContext& context_;
  Remembered inputs_;
  const BlockRow* rows_ = nullptr;
  int count_ = 0;
};

}  // namespace catserve::cuda

#include "kernels/cuda/attention_ops.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>
#include <vector>

#include "kernels/check.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/shape_checks.h"

namespace catserve::cuda {
namespace {

constexpr float kLog2E = 1.44269504f;

int64_t QueryWidth(const HeadSpec& spec) { return int64_t{spec.heads} * spec.head_dim; }
int64_t KvWidth(const HeadSpec& spec) { return int64_t{spec.kv_heads} * spec.head_dim; }

float ScaleLog2(const HeadSpec& spec) {
  return kLog2E / std::sqrt(static_cast<float>(spec.head_dim));
}

KvSlab SlabOf(const HeadSpec& spec, const KvLayer* kv) {
  return {.data = kv != nullptr ? kv->data : nullptr,
          .scales = kv != nullptr ? reinterpret_cast<BF16*>(kv->scales) : nullptr,
          .kv_heads = spec.kv_heads,
          .head_dim = spec.head_dim};
}

const float* Floats(const TensorView& view) { return static_cast<const float*>(view.data); }

// Over F32 memory pieces would lose what that memory is chosen for.
AttentionLayer LayerOf(const HeadSpec& spec, DType kv) {
  const bool tuned = kv != DType::kF32 && (spec.head_dim == 64 || spec.head_dim == 128);
  return {.heads = spec.heads,
          .kv_heads = spec.kv_heads,
          .head_dim = spec.head_dim,
          .tuned = tuned,
          .tensor_cores = tuned};
}

void CheckSameType(const TensorView& out, const TensorView& in) {
  CATSERVE_CHECK(out.dtype == in.dtype)
      << "heads of " << Name(in.dtype) << " into " << Name(out.dtype);
}

void CheckRange(const PagedAttentionOp::Entries& entries, int32_t first, int32_t count) {
  const int64_t pages = DivideUp(count, kKvPageEntries);
  CATSERVE_CHECK(count >= 0 && first >= 0 &&
                 first <= static_cast<int64_t>(entries.page_ids.size()) - pages)
      << count << " entries from page " << first << " of a list of " << entries.page_ids.size();
}

void CheckPages(const PagedAttentionOp::Entries& entries) {
  for (const AttentionRow& row : entries.rows) {
    CheckRange(entries, row.prefix_page, row.prefix_entries);
    CheckRange(entries, row.page, row.entries);
  }
  for (const int32_t id : entries.page_ids) {
    CATSERVE_CHECK(id >= 0 && id < entries.kv.pages) << "page " << id << " of " << entries.kv.pages;
  }
}

// Of the lists of a launch.
int64_t BytesOf(const AttentionLaunch& launch) {
  constexpr int64_t kInt = sizeof(int32_t), kDecode = sizeof(DecodeItem),
                    kPiece = sizeof(PieceItem), kCombine = sizeof(CombineItem);
  return kCounts * kInt + launch.items * kDecode + launch.pieces * kPiece +
         launch.combines * kCombine;
}

// Of one partial result of a row.
int64_t SlotBytes(const HeadSpec& spec) {
  return int64_t{spec.heads} * (spec.head_dim + 2) * SizeOf(DType::kF32);
}

// Page lists begin so much further on.
void MovePages(AttentionPlan& plan, int32_t by) {
  for (DecodeItem& item : plan.decode) item.first_page += by;
  for (PieceItem& item : plan.pieces) {
    item.prefix_page += by;
    item.first_page += by;
  }
}

}  // namespace

void PrepareHeadsOp::Run(const TensorView& qkv, const HeadSpec& spec, const Placement& placement) {
  CheckSpec(spec);
  CheckActivations(qkv, QueryWidth(spec) + 2 * KvWidth(spec), "qkv");
  CheckColumns(spec.rotary, spec.head_dim, "rotary");
  CATSERVE_CHECK(qkv.rows() == static_cast<int64_t>(placement.positions.size()))
      << placement.positions.size() << " positions for " << qkv.rows() << " rows";
  for (const int32_t position : placement.positions) {
    CATSERVE_CHECK(position >= 0 && position < spec.rotary.rows())
        << "position " << position << " of a rotary table of " << spec.rotary.rows();
  }
  if (placement.kv != nullptr) {
    CATSERVE_CHECK(placement.slots.size() == placement.positions.size())
        << placement.slots.size() << " slots for " << qkv.rows() << " rows";
    for (const int64_t slot : placement.slots) {
      CATSERVE_CHECK(slot < placement.kv->pages * kKvPageEntries)
          << "entry " << slot << " of " << placement.kv->pages << " pages";
    }
  }
  Packet lists;
  const int64_t counts[] = {std::ssize(placement.positions), std::ssize(placement.slots)};
  lists.Add(std::span<const int64_t>(counts));
  const int64_t positions_at = lists.Add(placement.positions);
  const int64_t slots_at = lists.Add(placement.slots);
  if (!lists_.Holds(lists, *context_.work)) {
    const std::byte* base = context_.work->Send(lists);
    positions_ = ListAt<int32_t>(base, positions_at);
    slots_ = ListAt<int64_t>(base, slots_at);
    lists_.Store(lists, *context_.work);
  }
  const PrepareHeadsArgs args{.qkv = qkv.data,
                              .type = qkv.dtype,
                              .stride = qkv.row_stride,
                              .heads = spec.heads,
                              .kv = SlabOf(spec, placement.kv),
                              .q_norm = Floats(spec.q_norm),
                              .k_norm = Floats(spec.k_norm),
                              .rotary = Floats(spec.rotary),
                              .positions = positions_,
                              .slots = placement.kv != nullptr ? slots_ : nullptr,
                              .norm_eps = spec.norm_eps};
  const DType kv_type = placement.kv != nullptr ? placement.kv->dtype : DType::kF32;
  context_.work->Do<LaunchPrepareHeads>(args, static_cast<int>(qkv.rows()), kv_type);
}

void PagedAttentionOp::SendPlan(const HeadSpec& spec, const Entries& entries) {
  const AttentionLayer layer = LayerOf(spec, entries.kv.dtype);
  const int64_t shape[] = {layer.heads,         layer.kv_heads,   layer.head_dim,
                           layer.tuned ? 1 : 0, entries.kv.pages, std::ssize(entries.rows)};
  Packet inputs;
  inputs.Add(std::span<const int64_t>(shape));
  inputs.Add(entries.rows);
  inputs.Add(entries.page_ids);
  if (inputs_.Holds(inputs, *context_.work)) return;
  CheckPages(entries);
  AttentionPlan plan =
      PlanAttention(entries.rows, static_cast<int>(entries.rows.size()), layer, context_.device);
  WorkQueue& work = *context_.work;
  // Where a part recurs, blocks beyond the counts return at once.
  launch_ = {.kv = entries.kv.dtype,
             .group = plan.group,
             .split_warps = plan.split_warps,
             .items = static_cast<int>(work.RoomFor(std::ssize(plan.decode))),
             .pieces = static_cast<int>(work.RoomFor(std::ssize(plan.pieces))),
             .combines = static_cast<int>(work.RoomFor(std::ssize(plan.combines)))};
  const int64_t slots_max = context_.scratch->Fits(SlotBytes(spec), 2);
  slots_ = std::max<int64_t>(plan.slots, std::min(work.RoomFor(plan.slots), slots_max));
  int32_t counts[kCounts] = {};
  counts[kDecodeCount] = static_cast<int32_t>(plan.decode.size());
  counts[kPieceCount] = static_cast<int32_t>(plan.pieces.size());
  counts[kCombineCount] = static_cast<int32_t>(plan.combines.size());
  Packet pages;
  pages.Add(entries.page_ids);
  Packet lists;
  work.MakeRoom(pages.size() + BytesOf(launch_), 2 + 3);
  static_assert(Packet::kAlignment % sizeof(int32_t) == 0);
  MovePages(plan, static_cast<int32_t>(work.SendApart(pages) / sizeof(int32_t)));
  const int64_t counts_at = lists.Add(std::span<const int32_t>(counts));
  const int64_t decode_at = lists.Add(plan.decode, launch_.items);
  const int64_t pieces_at = lists.Add(plan.pieces, launch_.pieces);
  const int64_t combines_at = lists.Add(plan.combines, launch_.combines);
  const std::byte* base = work.Send(lists);
  args_.counts = ListAt<int32_t>(base, counts_at);
  args_.decode_items = ListAt<DecodeItem>(base, decode_at);
  args_.piece_items = ListAt<PieceItem>(base, pieces_at);
  args_.combine_items = ListAt<CombineItem>(base, combines_at);
  args_.page_ids = ListAt<int32_t>(work.lists(), 0);
  inputs_.Store(inputs, *context_.work);
}

void PagedAttentionOp::Run(const TensorView& out, const TensorView& q, const HeadSpec& spec,
                           const Entries& entries) {
  CheckSpec(spec);
  CheckActivations(q, QueryWidth(spec), "q");
  CheckActivations(out, QueryWidth(spec), "out");
  CheckSameType(out, q);
  const auto count = static_cast<int64_t>(entries.rows.size());
  CATSERVE_CHECK(q.rows() == count && out.rows() == count)
      << count << " descriptions for " << q.rows() << " rows of q and " << out.rows() << " of out";
  if (count == 0) return;
  SendPlan(spec, entries);
  launch_.kv = entries.kv.dtype;
  if (slots_ > context_.scratch->Fits(SlotBytes(spec), 2) && count > 1) {
    // More partial results than there is room for: by halves.
    const int64_t half = count / 2;
    for (const auto& [first, rows] : {std::pair{int64_t{0}, half}, {half, count - half}}) {
      Run(out.Rows(first, rows), q.Rows(first, rows), spec,
          {entries.kv, entries.rows.subspan(first, rows), entries.page_ids});
    }
    return;
  }
  context_.scratch->Begin();
  PagedAttentionArgs args = args_;
  args.q = q.data;
  args.out = out.data;
  args.type = q.dtype;
  args.q_stride = q.row_stride;
  args.out_stride = out.row_stride;
  args.kv = SlabOf(spec, &entries.kv);
  args.heads = spec.heads;
  args.scale_log2 = ScaleLog2(spec);
  args.partial_out = context_.scratch->Take<float>(slots_ * QueryWidth(spec));
  args.partial_max_sum = context_.scratch->Take<float>(slots_ * spec.heads * 2);
  context_.work->Do<LaunchPagedAttention>(args, launch_);
}

void BlockAttentionOp::Run(const TensorView& out, const TensorView& qkv, const HeadSpec& spec,
                           std::span<const RowBlock> blocks) {
  CheckSpec(spec);
  CheckActivations(qkv, QueryWidth(spec) + 2 * KvWidth(spec), "qkv");
  CheckActivations(out, QueryWidth(spec), "out");
  CheckSameType(out, qkv);
  CATSERVE_CHECK(out.rows() == qkv.rows()) << out.rows() << " rows of out for " << qkv.rows();
  for (const RowBlock& block : blocks) {
    CATSERVE_CHECK(block.first >= 0 && block.count >= 0 && block.first <= qkv.rows() - block.count)
        << "block [" << block.first << ", +" << block.count << ") of " << qkv.rows();
  }
  Packet inputs;
  inputs.Add(blocks);
  if (!inputs_.Holds(inputs, *context_.work)) {
    std::vector<BlockRow> rows;
    for (const RowBlock& block : blocks) {
      for (int32_t i = 0; i < block.count; ++i) {
        rows.push_back({block.first + i, block.first, block.count});
      }
    }
    Packet lists;
    lists.Add(rows);
    rows_ = ListAt<BlockRow>(context_.work->Send(lists), 0);
    count_ = static_cast<int>(rows.size());
    inputs_.Store(inputs, *context_.work);
  }
  const BlockAttentionArgs args{.out = out.data,
                                .qkv = qkv.data,
                                .out_stride = out.row_stride,
                                .stride = qkv.row_stride,
                                .blocks = rows_,
                                .heads = spec.heads,
                                .kv_heads = spec.kv_heads,
                                .head_dim = spec.head_dim,
                                .scale_log2 = ScaleLog2(spec)};
  context_.work->Do<LaunchBlockAttention>(args, count_, qkv.dtype);
}

}  // namespace catserve::cuda

#include "kernels/cpu/products.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/cpu/hold_int8.h"
#include "kernels/cpu/packed_matrix.h"

namespace catserve::cpu {
namespace {

// Rows that go through all panels before the next rows do: their activations stay in the L2 cache
// while the weights stream. A multiple of the register tiles.
constexpr int64_t kRowBlock = 96;
// Panels that a thread takes together: with few rows latency is hidden across them.
constexpr int64_t kPanelGroup = 4;

}  // namespace

void Products::Multiply(const TensorView& out, const TensorView& x, const Matrix& w, bool add) {
  if (const auto* int8 = dynamic_cast<const Int8Matrix*>(&w))
    return MultiplyInt8(out, x, *int8, add);
  if (const auto* int4 = dynamic_cast<const Int4Matrix*>(&w))
    return MultiplyInt4(out, x, *int4, add);
  const auto* packed = dynamic_cast<const PackedMatrix*>(&w);
  CATSERVE_CHECK(packed != nullptr) << "the matrix was packed by another backend";
  const bool bf16 = packed->dtype() == DType::kBF16;
  const TensorView inputs = bf16 ? HoldBf16(x) : x;
  const auto mat_mul = bf16 ? ops_.mat_mul_bf16 : ops_.mat_mul;
  ForPieces(w, x.rows(), [&](const Piece& piece) {
    mat_mul({.out = out.row<float>(piece.row) + piece.panel * kPanel,
             .out_stride = out.row_stride,
             .x = inputs.row<const float>(piece.row),
             .x_stride = inputs.row_stride,
             .rows = piece.rows,
             .panels = packed->panel(piece.panel),
             .in = w.in_features(),
             .out_features = piece.out_features,
             .add = add});
  });
}

TensorView Products::HoldBf16(const TensorView& x) {
  const int64_t in = x.shape[1];
  TensorView held = x;
  held.row_stride = HeldBf16Stride(in);
  const auto floats = static_cast<size_t>(x.rows() * held.row_stride);
  bf16_inputs_.resize(std::max(bf16_inputs_.size(), floats));
  held.data = bf16_inputs_.data();
  crew_.ForEach(x.rows(), in, [&](int64_t i, Mate&) {
    ops_.hold_bf16(held.row<float>(i), x.row<const float>(i), in);
  });
  return held;
}

template <typename Group>
const Group* Products::HoldRows(std::vector<Group>& held, const TensorView& x) {
  const int64_t in = x.shape[1];
  const int64_t groups = (in + kGroupInputs - 1) / kGroupInputs;
  held.resize(std::max(held.size(), static_cast<size_t>(x.rows() * groups)));
  crew_.ForEach(x.rows(), 4 * in, [&](int64_t i, Mate&) {
    HoldInputs(ops_, held.data() + i * groups, x.row<const float>(i), in);
  });
  return held.data();
}

void Products::MultiplyInt8(const TensorView& out, const TensorView& x, const Int8Matrix& w,
                            bool add) {
  const Int16Group* held = HoldRows(int16_inputs_, x);
  ForPieces(w, x.rows(), [&](const Piece& piece) {
    ops_.mat_mul_int8({.out = out.row<float>(piece.row) + piece.panel * kPanel,
                       .out_stride = out.row_stride,
                       .x = held + piece.row * w.groups(),
                       .rows = piece.rows,
                       .panels = w.panel(piece.panel),
                       .scales = w.scales(piece.panel),
                       .groups = w.groups(),
                       .out_features = piece.out_features,
                       .add = add});
  });
}

void Products::MultiplyInt4(const TensorView& out, const TensorView& x, const Int4Matrix& w,
                            bool add) {
  const Int8Group* held = HoldRows(int8_inputs_, x);
  ForPieces(w, x.rows(), [&](const Piece& piece) {
    ops_.mat_mul_int4({.out = out.row<float>(piece.row) + piece.panel * kPanel,
                       .out_stride = out.row_stride,
                       .x = held + piece.row * w.groups(),
                       .rows = piece.rows,
                       .panels = w.panel(piece.panel),
                       .groups = w.groups(),
                       .out_features = piece.out_features,
                       .add = add});
  });
}

template <typename MultiplyPiece>
void Products::ForPieces(const Matrix& w, int64_t rows, const MultiplyPiece& multiply) {
  const int64_t group_width = kPanelGroup * kPanel;
  const int64_t groups = (w.out_features() + group_width - 1) / group_width;
  const int64_t blocks = (rows + kRowBlock - 1) / kRowBlock;
  const int64_t group_work = std::min(rows, kRowBlock) * group_width * w.in_features();
  crew_.ForRanges(blocks * groups, group_work, [&](Range share, Mate&) {
    while (share.begin < share.end) {
      const int64_t block = share.begin / groups;
      const int64_t end = std::min(share.end, (block + 1) * groups);
      const int64_t group = share.begin - block * groups;
      const int64_t column = group * group_width;
      multiply(
          {.row = block * kRowBlock,
           .rows = std::min(kRowBlock, rows - block * kRowBlock),
           .panel = group * kPanelGroup,
           .out_features = std::min((end - share.begin) * group_width, w.out_features() - column)});
      share.begin = end;
    }
  });
}

}  // namespace catserve::cpu

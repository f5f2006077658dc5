// Products of rows with a weight matrix of any format, in pieces for the threads of a crew.
#pragma once

#include <vector>

#include "kernels/cpu/crew.h"
#include "kernels/cpu/int4_matrix.h"
#include "kernels/cpu/int8_matrix.h"
#include "kernels/cpu/ops.h"

namespace catserve::cpu {

class Products {
 public:
  // Both must live as long as this.
  Products(const Ops& ops, Crew& crew) : ops_(ops), crew_(crew) {}

  // Backend::MatMul, its shapes checked. w: of this backend.
  void Multiply(const TensorView& out, const TensorView& x, const Matrix& w, bool add);

 private:
  // A part of a product that one thread computes: all of `rows` with consecutive outputs.
  struct Piece {
    int64_t row;
    int64_t rows;
    int64_t panel;
    int64_t out_features;
  };
  // Calls multiply(piece) for pieces that make up the product of `rows` rows with w.
  template <typename MultiplyPiece>
  void ForPieces(const Matrix& w, int64_t rows, const MultiplyPiece& multiply);

  void MultiplyInt8(const TensorView& out, const TensorView& x, const Int8Matrix& w, bool add);
  void MultiplyInt4(const TensorView& out, const TensorView& x, const Int4Matrix& w, bool add);
  // Rows of x as products with BF16 weights take them.
  TensorView HoldBf16(const TensorView& x);
  // The rows of x in groups, in `held`.
  template <typename Group>
  const Group* HoldRows(std::vector<Group>& held, const TensorView& x);

  const Ops& ops_;
  Crew& crew_;
  // Inputs of one product; each grows to the largest need seen.
  std::vector<float> bf16_inputs_;
  std::vector<Int8Group> int8_inputs_;
  std::vector<Int16Group> int16_inputs_;
};

}  // namespace catserve::cpu

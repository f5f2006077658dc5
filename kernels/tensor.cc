#include "kernels/tensor.h"

#include "kernels/check.h"

namespace catserve {

const char* Name(DType dtype) {
  switch (dtype) {
    case DType::kF32: return "F32";
    case DType::kBF16: return "BF16";
    case DType::kF16: return "F16";
    case DType::kI32: return "I32";
    case DType::kI8: return "I8";
    case DType::kE4M3: return "F8_E4M3";
  }
  return "unknown";
}

TensorView::TensorView(void* data, DType dtype, std::initializer_list<int64_t> dims)
    : data(data), dtype(dtype), rank(static_cast<int>(dims.size())) {
  CATSERVE_CHECK(dims.size() >= 1 && dims.size() <= shape.size()) << "a view has 1 to 4 dimensions";
  int i = 0;
  for (const int64_t dim : dims) {
    CATSERVE_CHECK(dim >= 0) << "dimension " << i << " is " << dim;
    shape[i++] = dim;
  }
  row_stride = row_size();
}

int64_t TensorView::row_size() const {
  int64_t elements = 1;
  for (int i = 1; i < rank; ++i) elements *= shape[i];
  return elements;
}

TensorView TensorView::Rows(int64_t first, int64_t count) const {
  CATSERVE_CHECK(rank >= 1 && first >= 0 && count >= 0 && first <= rows() - count)
      << "rows [" << first << ", +" << count << ") of " << (rank >= 1 ? rows() : 0);
  TensorView view = *this;
  view.data = static_cast<char*>(data) + first * row_stride * SizeOf(dtype);
  view.shape[0] = count;
  return view;
}

TensorView TensorView::Columns(int64_t first, int64_t count) const {
  CATSERVE_CHECK(rank == 2 && first >= 0 && count >= 0 && first <= shape[1] - count)
      << "columns [" << first << ", +" << count << ") of a view of rank " << rank << " with "
      << shape[1] << " columns";
  TensorView view = *this;
  view.data = static_cast<char*>(data) + first * SizeOf(dtype);
  view.shape[1] = count;
  return view;
}

}  // namespace catserve

// A view of a tensor: who owns the memory, and where it lies, is the backend's business.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace catserve {

enum class DType : uint8_t { kF32, kBF16, kF16, kI32, kI8, kE4M3 };

constexpr int64_t SizeOf(DType dtype) {
  if (dtype == DType::kI8 || dtype == DType::kE4M3) return 1;
  return dtype == DType::kBF16 || dtype == DType::kF16 ? 2 : 4;
}
const char* Name(DType dtype);  // "F32", "BF16", ...: as safetensors spells it
// What weights and tables are given as.
constexpr bool IsPlainFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

// Row-major, the last dimension contiguous; only the first dimension may have a stride larger than
// dense (a column block of a wider matrix). A plain value; does not own.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  std::array<int64_t, 4> shape{};
  int64_t row_stride = 0;  // elements from one index of dimension 0 to the next

  TensorView() = default;
  TensorView(void* data, DType dtype, std::initializer_list<int64_t> dims);

  int64_t rows() const { return shape[0]; }
  int64_t row_size() const;  // elements in one index of dimension 0
  int64_t size() const { return rank == 0 ? 0 : rows() * row_size(); }
  TensorView Rows(int64_t first, int64_t count) const;     // a slice along dimension 0
  TensorView Columns(int64_t first, int64_t count) const;  // REQUIRES rank 2: [rows, count]

  template <typename T>
  T* row(int64_t i) const {
    return static_cast<T*>(data) + i * row_stride;
  }
};

}  // namespace catserve

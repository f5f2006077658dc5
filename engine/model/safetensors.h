// The safetensors format: 8 bytes of header length, a JSON header, raw little-endian data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/tensor.h"

namespace catserve {

inline constexpr int64_t kSafetensorsHeaderBytesMax = 16 << 20;

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  bool counter = false;        // I64: a training counter that some checkpoints carry; dtype unset
  std::vector<int64_t> shape;  // at most 4 dimensions
  int64_t begin = 0;           // bytes from the start of the file, a multiple of the element's size
  int64_t end = 0;
};

// What ParseSafetensors needs of a file's beginning, if the file has as much.
inline constexpr int64_t kSafetensorsBeginningBytesMax = 8 + kSafetensorsHeaderBytesMax;

// Reads the header of a file of `file_bytes` bytes and proves that every tensor lies inside it:
// known dtype (F32, F16, BF16; I64 for counters), dtype x shape = bytes, no overlap, no gap, no
// byte left over. The result is in the order of the data. Errors: INVALID_ARGUMENT in one line
// naming file and tensor. REQUIRES: `bytes` are the file's first, all of them or at least
// kSafetensorsBeginningBytesMax.
absl::StatusOr<std::vector<TensorInfo>> ParseSafetensors(std::span<const std::byte> bytes,
                                                         int64_t file_bytes,
                                                         const std::string& file);

}  // namespace catserve

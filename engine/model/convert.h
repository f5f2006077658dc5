// Float formats of host tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/tensor.h"

namespace catserve {

// A host tensor and, where it is no view of another's, its memory.
struct HostTensor {
  TensorView view;
  std::vector<std::byte> owned;
};

// The tensor in another float format, without a copy where it already has it.
// REQUIRES: source dense, F32, BF16 or F16; dtype one of these.
HostTensor ConvertTo(const TensorView& source, DType dtype);

// The first element that is NaN or infinite; none if all are numbers. REQUIRES: as ConvertTo.
std::optional<int64_t> FirstNotFinite(const TensorView& source);

// The rows of all parts, in their order. REQUIRES: at least one part; equal dtypes and columns.
HostTensor StackRows(std::span<const TensorView> parts);

}  // namespace catserve

#include "engine/model/convert.h"

#include <cstdint>
#include <cstring>

#include "kernels/bfloat16.h"
#include "kernels/check.h"

namespace catserve {
namespace {

float LoadFloat(const TensorView& source, int64_t i) {
  switch (source.dtype) {
    case DType::kF32: return static_cast<const float*>(source.data)[i];
    case DType::kBF16: return FloatFromBF16(static_cast<const uint16_t*>(source.data)[i]);
    case DType::kF16: return FloatFromF16(static_cast<const uint16_t*>(source.data)[i]);
    case DType::kI32:
    case DType::kI8:
    case DType::kE4M3: break;
  }
  CATSERVE_CHECK(false) << "only float tensors are converted";
  return 0;
}

// Numbers that are none have all bits of the exponent.
template <typename Bits>
std::optional<int64_t> FirstWith(Bits exponent, const void* data, int64_t size) {
  const auto* const bits = static_cast<const Bits*>(data);
  bool found = false;
  for (int64_t i = 0; i < size; ++i) found |= (bits[i] & exponent) == exponent;
  for (int64_t i = 0; found && i < size; ++i) {
    if ((bits[i] & exponent) == exponent) return i;
  }
  return std::nullopt;
}

HostTensor Allocate(const TensorView& like, DType dtype) {
  HostTensor tensor;
  tensor.owned.resize(static_cast<size_t>(like.size() * SizeOf(dtype)));
  tensor.view = like;
  tensor.view.data = tensor.owned.data();
  tensor.view.dtype = dtype;
  return tensor;
}

}  // namespace

HostTensor ConvertTo(const TensorView& source, DType dtype) {
  if (source.dtype == dtype) return {source, {}};
  HostTensor result = Allocate(source, dtype);
  const int64_t size = source.size();
  if (dtype == DType::kF32) {
    float* to = static_cast<float*>(result.view.data);
    for (int64_t i = 0; i < size; ++i) to[i] = LoadFloat(source, i);
  } else {
    CATSERVE_CHECK(IsPlainFloat(dtype)) << "conversion to " << Name(dtype) << " does not exist";
    const auto narrow = dtype == DType::kBF16 ? BF16FromFloat : F16FromFloat;
    uint16_t* to = static_cast<uint16_t*>(result.view.data);
    for (int64_t i = 0; i < size; ++i) to[i] = narrow(LoadFloat(source, i));
  }
  return result;
}

std::optional<int64_t> FirstNotFinite(const TensorView& source) {
  const int64_t size = source.size();
  if (source.dtype == DType::kF32) return FirstWith<uint32_t>(0x7f800000, source.data, size);
  CATSERVE_CHECK(IsPlainFloat(source.dtype)) << Name(source.dtype) << " is no float tensor";
  const uint16_t exponent = source.dtype == DType::kBF16 ? 0x7f80 : 0x7c00;
  return FirstWith<uint16_t>(exponent, source.data, size);
}

HostTensor StackRows(std::span<const TensorView> parts) {
  TensorView all = parts[0];
  for (const TensorView& part : parts.subspan(1)) {
    CATSERVE_CHECK(part.dtype == all.dtype && part.row_size() == all.row_size())
        << "only rows of the same kind can be stacked";
    all.shape[0] += part.rows();
  }
  HostTensor result = Allocate(all, all.dtype);
  std::byte* to = result.owned.data();
  for (const TensorView& part : parts) {
    const size_t bytes = static_cast<size_t>(part.size() * SizeOf(part.dtype));
    std::memcpy(to, part.data, bytes);
    to += bytes;
  }
  return result;
}

}  // namespace catserve

// Any bytes are either a safetensors file or a Status; what is accepted lies inside the bytes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <span>

#include "engine/model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto tensors = catserve::ParseSafetensors(bytes, std::ssize(bytes), "fuzz.safetensors");
  if (!tensors.ok()) return 0;
  for (const catserve::TensorInfo& tensor : *tensors) {
    if (tensor.begin < 8 || tensor.begin > tensor.end || tensor.end > size) std::abort();
  }
  return 0;
}

// Memory of the CPU backend: 64-byte aligned, zero-filled and touched when it is made. From 2 MiB
// on its pages come in turn from all memory nodes (NUMA) that the process may use.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace catserve::cpu {

class HostBuffer : public Buffer {
 public:
  // Errors: INVALID_ARGUMENT if bytes is negative; RESOURCE_EXHAUSTED with the numbers if the
  // machine does not have or does not give them.
  static absl::StatusOr<std::unique_ptr<HostBuffer>> Create(int64_t bytes);

  ~HostBuffer() override;
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;

  void* data() override { return data_; }
  const void* data() const { return data_; }
  int64_t bytes() const override { return bytes_; }

 private:
  HostBuffer(void* data, int64_t bytes) : data_(data), bytes_(bytes) {}

  void* data_;
  int64_t bytes_;
};

}  // namespace catserve::cpu

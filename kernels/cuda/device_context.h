// What the operations of the backend share: the device, its memory and the ways to it.
#pragma once

#include <map>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/mat_mul_library.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/staging.h"

namespace catserve::cuda {

// Device memory with an owner. Neither it nor what it comes from is thread-safe.
class DeviceBuffer : public Buffer {
 public:
  // Zero-filled. REQUIRES: context outlives it. Errors: as Runtime::Allocate.
  static absl::StatusOr<std::unique_ptr<DeviceBuffer>> Create(struct DeviceContext& context,
                                                              int64_t bytes);
  ~DeviceBuffer() override;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  void* data() override { return data_; }
  const void* data() const { return data_; }
  int64_t bytes() const override { return bytes_; }

 private:
  DeviceBuffer(DeviceContext& context, void* data, int64_t bytes)
      : context_(context), data_(data), bytes_(bytes) {}

  DeviceContext& context_;
  void* data_;
  int64_t bytes_;
};

// A list of inputs, as the host gave it, and where it lies on the device. Layers of a step give the
// same lists one after another: only the first of them sends any.
class Remembered {
 public:
  bool Holds(const Packet& inputs, const WorkQueue& work) const;
  void Store(const Packet& inputs, const WorkQueue& work);

 private:
  Packet inputs_;
  int64_t generation_ = -1;
};

struct DeviceContext {
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<WorkQueue> work;
  std::unique_ptr<DownloadArena> downloads;
  std::unique_ptr<Scratch> scratch;
  std::unique_ptr<MatMulLibrary> products;
  Device device;  // for plans of attention
  // That live, of all backends of the device: first byte and size.
  std::shared_ptr<std::map<const char*, int64_t>> buffers =
      std::make_shared<std::map<const char*, int64_t>>();

  // Whether the address lies in a buffer of the device; else it is the host's.
  bool Owns(const void* address) const;
  // Waits for the device; results have reached the host.
  void Synchronize();
  // Ends a step; Await waits for it as Synchronize does for all.
  int64_t Submit();
  void Await(int64_t submitted) { downloads->Await(submitted); }
};

}  // namespace catserve::cuda

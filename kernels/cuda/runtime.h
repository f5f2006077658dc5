// What the backend needs of a device, and nothing more: memory, streams, facts. Two libraries
// define it. One is CUDA's (cuda_runtime.cc), the other is emulated (emulator/runtime.cc): host
// memory whose stream does its work only when somebody waits for it.
//
// A call that a device in order cannot refuse returns nothing: when it fails all the same, the
// device is lost and so is the process (backend_lost.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/operations.h"

namespace catserve::cuda {

struct DeviceFacts {
  std::string name;
  int compute_capability = 0;  // 90: 9.0
  int multiprocessors = 0;
};

// Work that was recorded from a stream. It holds device memory, and must not outlive its runtime.
class Graph {
 public:
  Graph(Graph&& other) noexcept;
  Graph& operator=(Graph&& other) noexcept;
  ~Graph();  // REQUIRES: the device has done what it was given of it

 private:
  friend class Runtime;
  class Impl;
  explicit Graph(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

// Not thread-safe.
class Runtime {
 public:
  // The first device. Errors: UNAVAILABLE that says what is missing.
  static absl::StatusOr<std::unique_ptr<Runtime>> Create();
  // Another stream of this device, which gives way to this one's where both have work to start. All
  // memory serves both. REQUIRES: this one outlives it. Errors: as Create.
  absl::StatusOr<std::unique_ptr<Runtime>> CreateBeside() const;
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  const DeviceFacts& facts() const;
  Stream stream() const;
  DeviceMemory memory() const;

  // Device memory, aligned to 256 bytes; what is in it is anybody's guess. Errors:
  // RESOURCE_EXHAUSTED with the numbers, INVALID_ARGUMENT if bytes is negative.
  absl::StatusOr<void*> Allocate(int64_t bytes);
  void Free(void* data);  // after all that the stream was given so far

  // Host memory that the device copies from and to while the host goes on.
  absl::StatusOr<void*> AllocatePinned(int64_t bytes);
  void FreePinned(void* data);

  // In order with the launches on stream(). Host memory must stay, unchanged, until Synchronize, or
  // Wait of a later mark.
  void Copy(void* to, const void* from, int64_t bytes);
  void Zero(void* data, int64_t bytes);
  void Synchronize();

  // Stands for all that the stream was given so far; Wait returns once that is done, whatever came
  // after it. Marks grow. Of a mark before the last few it may wait for one of those.
  int64_t Mark();
  void Wait(int64_t mark);
  // What stream() is given from here on starts once `other` has done what its mark stands for, one
  // of its last few. REQUIRES: nothing is recorded.
  void After(const Runtime& other, int64_t mark);

  // What stream() is given between the two is recorded, and not done. REQUIRES: it is launches and
  // copies within the device's memory, which the stream was given once before. Nothing: the device
  // cannot record that.
  void BeginCapture();
  // Whether what is being recorded will be refused: launches do nothing until it ends.
  bool CaptureSpoilt() const;
  std::optional<Graph> EndCapture();
  // Gives the stream the recorded work.
  void Launch(const Graph& graph);

 private:
  class Impl;
  explicit Runtime(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace catserve::cuda

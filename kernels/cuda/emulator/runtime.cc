// The emulated device: two small multiprocessors, so that plans split rows as they do on a device
// with little to do, and little memory.
#include "kernels/cuda/runtime.h"

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cuda/emulator/capture.h"
#include "kernels/cuda/emulator/memory.h"
#include "kernels/cuda/emulator/pace.h"
#include "kernels/cuda/emulator/queue.h"
#include "kernels/cuda/emulator/work.h"

namespace catserve::cuda {
namespace {

constexpr int64_t kAlignment = 256;

int64_t& NextDeviceBytes() {
  static int64_t bytes = int64_t{4} << 30;
  return bytes;
}

emulator::Pace& NextPace() {
  static emulator::Pace pace = emulator::Pace::kLazy;
  return pace;
}

int& NextComputeCapability() {
  static int capability = 90;
  return capability;
}

// Host memory as fresh memory of a device is: nobody knows what is in it.
void* TakeMemory(int64_t bytes) {
  void* const data = std::aligned_alloc(kAlignment, static_cast<size_t>(bytes));
  if (data != nullptr) std::memset(data, 0xff, static_cast<size_t>(bytes));  // NaN in every float
  return data;
}

int64_t Rounded(int64_t bytes) { return (bytes / kAlignment + 1) * kAlignment; }

absl::Status CheckSize(int64_t bytes) {
  if (bytes >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a buffer of ", bytes, " bytes was asked for: its size overflowed"));
}

// What the streams of a device have in common.
struct Shared {
  DeviceMemory memory{.free = NextDeviceBytes(), .total = NextDeviceBytes()};
  std::map<const void*, int64_t> taken;  // bytes of the device's memory, rounded

  bool Has(const void* address) const {
    const auto after = taken.upper_bound(address);
    if (after == taken.begin()) return false;
    const auto& [first, bytes] = *std::prev(after);
    return static_cast<const std::byte*>(address) < static_cast<const std::byte*>(first) + bytes;
  }
};

}  // namespace

void emulator::SetDeviceBytes(int64_t bytes) { NextDeviceBytes() = bytes; }
void emulator::SetComputeCapability(int capability) { NextComputeCapability() = capability; }
void emulator::SetPace(Pace pace) { NextPace() = pace; }

// Recorded launches keep the arguments that they were given, as a device's do.
class Graph::Impl {
 public:
  std::vector<std::function<void()>> work;
};

Graph::Graph(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Graph::Graph(Graph&& other) noexcept = default;
Graph& Graph::operator=(Graph&& other) noexcept = default;
Graph::~Graph() = default;

class Runtime::Impl {
 public:
  DeviceFacts facts{
      .name = "emulated", .compute_capability = NextComputeCapability(), .multiprocessors = 2};
  emulator::Queue queue{NextPace()};
  std::shared_ptr<Shared> device = std::make_shared<Shared>();
};

absl::StatusOr<std::unique_ptr<Runtime>> Runtime::Create() {
  return std::unique_ptr<Runtime>(new Runtime(std::make_unique<Impl>()));
}

absl::StatusOr<std::unique_ptr<Runtime>> Runtime::CreateBeside() const {
  auto impl = std::make_unique<Impl>();
  impl->facts = facts();
  impl->device = impl_->device;
  return std::unique_ptr<Runtime>(new Runtime(std::move(impl)));
}

Runtime::Runtime(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Runtime::~Runtime() { impl_->queue.RunAll(); }

const DeviceFacts& Runtime::facts() const { return impl_->facts; }
Stream Runtime::stream() const { return {&impl_->queue}; }
DeviceMemory Runtime::memory() const { return impl_->device->memory; }

absl::StatusOr<void*> Runtime::Allocate(int64_t bytes) {
  if (absl::Status status = CheckSize(bytes); !status.ok()) return status;
  CATSERVE_CHECK(!impl_->queue.capturing()) << "memory is allocated while the device records";
  DeviceMemory& memory = impl_->device->memory;
  if (bytes >= memory.free || Rounded(bytes) > memory.free) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes,
                                                     " bytes of the GPU's memory; it has ",
                                                     memory.free, " free of ", memory.total));
  }
  void* const data = TakeMemory(Rounded(bytes));
  if (data == nullptr) return absl::ResourceExhaustedError("the host has no memory left");
  memory.free -= impl_->device->taken[data] = Rounded(bytes);
  return data;
}

void Runtime::Free(void* data) {
  Synchronize();
  const auto taken = impl_->device->taken.extract(data);
  CATSERVE_CHECK(!taken.empty()) << "memory is freed that this device does not have";
  impl_->device->memory.free += taken.mapped();
  std::free(data);
}

absl::StatusOr<void*> Runtime::AllocatePinned(int64_t bytes) {
  if (absl::Status status = CheckSize(bytes); !status.ok()) return status;
  void* const data = TakeMemory(Rounded(bytes));
  if (data == nullptr) return absl::ResourceExhaustedError("the host has no memory left");
  return data;
}

void Runtime::FreePinned(void* data) {
  Synchronize();
  std::free(data);
}

void Runtime::Copy(void* to, const void* from, int64_t bytes) {
  if (impl_->device->Has(to) && !impl_->device->Has(from)) emulator::Work::Given().CountUpload();
  impl_->queue.Add([=] { std::memmove(to, from, static_cast<size_t>(bytes)); });
}

void Runtime::Zero(void* data, int64_t bytes) {
  impl_->queue.Add([=] { std::memset(data, 0, static_cast<size_t>(bytes)); });
}

void Runtime::Synchronize() {
  CATSERVE_CHECK(!impl_->queue.capturing()) << "the device is waited for while it records";
  impl_->queue.RunAll();
}

void Runtime::BeginCapture() { impl_->queue.BeginCapture(); }

bool Runtime::CaptureSpoilt() const { return false; }

std::optional<Graph> Runtime::EndCapture() {
  auto graph = std::make_unique<Graph::Impl>();
  graph->work = impl_->queue.EndCapture();
  if (emulator::Capture::refused) return std::nullopt;
  return Graph(std::move(graph));
}

void Runtime::Launch(const Graph& graph) {
  for (const std::function<void()>& work : graph.impl_->work) impl_->queue.Add(work);
}

int64_t Runtime::Mark() { return impl_->queue.given(); }
void Runtime::Wait(int64_t mark) { impl_->queue.RunTo(mark); }

void Runtime::After(const Runtime& other, int64_t mark) {
  CATSERVE_CHECK(!impl_->queue.capturing())
      << "another stream is waited for while this one records";
  impl_->queue.Add([&queue = other.impl_->queue, mark] { queue.RunTo(mark); });
}

}  // namespace catserve::cuda

// The emulated device: two small multiprocessors, so that plans split rows as they do on a device
// with little to do, and little memory.
#include "kernels/cuda/runtime.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/emulator/queue.h"

namespace catserve::cuda {
namespace {

constexpr int64_t kMemoryBytes = int64_t{4} << 30;
constexpr int64_t kAlignment = 256;

}  // namespace

class Runtime::Impl {
 public:
  DeviceFacts facts{.name = "emulated",
                    .compute_capability = 90,
                    .multiprocessors = 2,
                    .memory_bytes = kMemoryBytes};
  emulator::Queue queue;
};

absl::StatusOr<std::unique_ptr<Runtime>> Runtime::Create() {
  return std::unique_ptr<Runtime>(new Runtime(std::make_unique<Impl>()));
}

Runtime::Runtime(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Runtime::~Runtime() { impl_->queue.RunAll(); }

const DeviceFacts& Runtime::facts() const { return impl_->facts; }
Stream Runtime::stream() const { return {&impl_->queue}; }

absl::StatusOr<void*> Runtime::Allocate(int64_t bytes) {
  if (bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a buffer of ", bytes, " bytes was asked for: its size overflowed"));
  }
  if (bytes > kMemoryBytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cannot allocate ", bytes, " bytes of the GPU's memory; the machine has ", kMemoryBytes));
  }
  const int64_t rounded = (bytes / kAlignment + 1) * kAlignment;
  void* const data = std::aligned_alloc(kAlignment, static_cast<size_t>(rounded));
  if (data == nullptr) return absl::ResourceExhaustedError("the host has no memory left");
  std::memset(data, 0xff, static_cast<size_t>(rounded));  // NaN in every float type
  return data;
}

void Runtime::Free(void* data) {
  Synchronize();
  std::free(data);
}

absl::StatusOr<void*> Runtime::AllocatePinned(int64_t bytes) { return Allocate(bytes); }
void Runtime::FreePinned(void* data) { Free(data); }

void Runtime::Copy(void* to, const void* from, int64_t bytes) {
  impl_->queue.Add([=] { std::memmove(to, from, static_cast<size_t>(bytes)); });
}

void Runtime::Zero(void* data, int64_t bytes) {
  impl_->queue.Add([=] { std::memset(data, 0, static_cast<size_t>(bytes)); });
}

void Runtime::Synchronize() { impl_->queue.RunAll(); }

}  // namespace catserve::cuda

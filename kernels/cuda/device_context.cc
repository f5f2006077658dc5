#include "kernels/cuda/device_context.h"

#include <iterator>
#include <utility>

namespace catserve::cuda {

absl::StatusOr<std::unique_ptr<DeviceBuffer>> DeviceBuffer::Create(DeviceContext& context,
                                                                   int64_t bytes) {
  absl::StatusOr<void*> data = context.runtime->Allocate(bytes);
  if (!data.ok()) return data.status();
  context.runtime->Zero(*data, bytes);
  (*context.buffers)[static_cast<const char*>(*data)] = bytes;
  return std::unique_ptr<DeviceBuffer>(new DeviceBuffer(context, *data, bytes));
}

DeviceBuffer::~DeviceBuffer() {
  context_.buffers->erase(static_cast<const char*>(data_));
  context_.work->Submit();  // what still uses it
  context_.runtime->Free(data_);
  context_.work->ForgetGraphs();
}

bool Remembered::Holds(const Packet& inputs, const WorkQueue& work) const {
  return generation_ == work.generation() && inputs_ == inputs;
}

void Remembered::Store(const Packet& inputs, const WorkQueue& work) {
  inputs_ = inputs;
  generation_ = work.generation();
}

bool DeviceContext::Owns(const void* address) const {
  const auto* const byte = static_cast<const char*>(address);
  const auto after = buffers->upper_bound(byte);
  if (after == buffers->begin()) return false;
  const auto& [first, bytes] = *std::prev(after);
  return byte < first + bytes;
}

int64_t DeviceContext::Submit() {
  const int64_t mark = work->EndStep();
  downloads->EndStep(mark);
  return mark;
}

void DeviceContext::Synchronize() {
  downloads->Finish();
  work->Reset();
}

}  // namespace catserve::cuda

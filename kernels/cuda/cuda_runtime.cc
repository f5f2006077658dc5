// The runtime of CUDA. Linked statically: a machine without a driver gets a message, not a missing
// library.
#include <cuda_runtime_api.h>

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/backend_lost.h"
#include "kernels/cuda/runtime.h"

namespace catserve::cuda {
namespace {

void Require(cudaError_t error, const char* during) {
  if (error != cudaSuccess) BackendLost(during, cudaGetErrorString(error));
}

absl::Status Unavailable(const char* what, cudaError_t error) {
  return absl::UnavailableError(absl::StrCat(
      what, ": ", cudaGetErrorString(error),
      "; the cuda backend needs an NVIDIA GPU and its driver (nvidia-smi must show them), "
      "--backend=cpu does not"));
}

// Kernels are compiled for sm_80 and above; older devices would fail at the first launch.
constexpr int kComputeCapabilityMin = 80;

// Marks that can be told apart: more than steps are ever under way.
constexpr int kEvents = 4;

absl::StatusOr<DeviceFacts> ReadFacts() {
  int devices = 0;
  cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess) return Unavailable("no CUDA device answers", error);
  cudaDeviceProp properties{};
  error = cudaGetDeviceProperties(&properties, 0);
  if (error != cudaSuccess) return Unavailable("the first CUDA device does not answer", error);
  const int capability = properties.major * 10 + properties.minor;
  if (capability < kComputeCapabilityMin) {
    return absl::UnavailableError(absl::StrCat(properties.name, " has compute capability ",
                                               properties.major, ".", properties.minor,
                                               "; the cuda backend needs 8.0 or more"));
  }
  return DeviceFacts{.name = properties.name,
                     .compute_capability = capability,
                     .multiprocessors = properties.multiProcessorCount};
}

DeviceMemory ReadMemory() {
  size_t free = 0;
  size_t total = 0;
  Require(cudaMemGetInfo(&free, &total), "asking for free memory");
  return {.free = static_cast<int64_t>(free), .total = static_cast<int64_t>(total)};
}

struct Priorities {
  int least = 0;
  int greatest = 0;
};
// The first thing that is asked of the device itself, which may be taken or full.
absl::StatusOr<Priorities> ReadPriorities() {
  Priorities range;
  const cudaError_t error = cudaDeviceGetStreamPriorityRange(&range.least, &range.greatest);
  if (error != cudaSuccess) return Unavailable("the first CUDA device takes no work", error);
  return range;
}

absl::Status Exhausted(int64_t bytes) {
  cudaGetLastError();  // a refused allocation is no lost device: forget it
  const auto [free, total] = ReadMemory();
  return absl::ResourceExhaustedError(
      absl::StrCat("cannot allocate ", bytes, " bytes of the GPU's memory; it has ", free,
                   " free of ", total, ". Use a smaller model or fewer KV pages"));
}

absl::Status CheckSize(int64_t bytes) {
  if (bytes >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("a buffer of ", bytes, " bytes was asked for: its size overflowed"));
}

}  // namespace

class Graph::Impl {
 public:
  explicit Impl(cudaGraphExec_t exec) : exec_(exec) {}
  ~Impl() { cudaGraphExecDestroy(exec_); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  cudaGraphExec_t exec() const { return exec_; }

 private:
  cudaGraphExec_t exec_;
};

Graph::Graph(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Graph::Graph(Graph&& other) noexcept = default;
Graph& Graph::operator=(Graph&& other) noexcept = default;
Graph::~Graph() = default;

class Runtime::Impl {
 public:
  // Errors: UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<Impl>> Create(DeviceFacts facts, int priority);
  ~Impl() {
    for (cudaEvent_t event : events) cudaEventDestroy(event);
    if (stream != nullptr) cudaStreamDestroy(stream);
  }

  DeviceFacts facts;
  cudaStream_t stream = nullptr;
  std::vector<cudaEvent_t> events;  // of the last marks, in turn
  int64_t marks = 0;
};

absl::StatusOr<std::unique_ptr<Runtime::Impl>> Runtime::Impl::Create(DeviceFacts facts,
                                                                     int priority) {
  auto impl = std::make_unique<Impl>();
  impl->facts = std::move(facts);
  const cudaError_t error =
      cudaStreamCreateWithPriority(&impl->stream, cudaStreamNonBlocking, priority);
  if (error != cudaSuccess) return Unavailable("no stream can be made", error);
  for (int i = 0; i < kEvents; ++i) {
    cudaEvent_t event = nullptr;
    const cudaError_t made = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    if (made != cudaSuccess) return Unavailable("no event can be made", made);
    impl->events.push_back(event);
  }
  return impl;
}

absl::StatusOr<std::unique_ptr<Runtime>> Runtime::Create() {
  absl::StatusOr<DeviceFacts> facts = ReadFacts();
  if (!facts.ok()) return facts.status();
  const absl::StatusOr<Priorities> priorities = ReadPriorities();
  if (!priorities.ok()) return priorities.status();
  auto impl = Impl::Create(*std::move(facts), priorities->greatest);
  if (!impl.ok()) return impl.status();
  return std::unique_ptr<Runtime>(new Runtime(*std::move(impl)));
}

absl::StatusOr<std::unique_ptr<Runtime>> Runtime::CreateBeside() const {
  const absl::StatusOr<Priorities> priorities = ReadPriorities();
  if (!priorities.ok()) return priorities.status();
  auto impl = Impl::Create(facts(), priorities->least);
  if (!impl.ok()) return impl.status();
  return std::unique_ptr<Runtime>(new Runtime(*std::move(impl)));
}

Runtime::Runtime(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Runtime::~Runtime() = default;

const DeviceFacts& Runtime::facts() const { return impl_->facts; }
Stream Runtime::stream() const { return {impl_->stream}; }
DeviceMemory Runtime::memory() const { return ReadMemory(); }

absl::StatusOr<void*> Runtime::Allocate(int64_t bytes) {
  if (absl::Status status = CheckSize(bytes); !status.ok()) return status;
  void* data = nullptr;
  const size_t size = bytes > 0 ? static_cast<size_t>(bytes) : 1;
  if (cudaMalloc(&data, size) != cudaSuccess) return Exhausted(bytes);
  return data;
}

void Runtime::Free(void* data) {
  Synchronize();
  Require(cudaFree(data), "freeing memory");
}

absl::StatusOr<void*> Runtime::AllocatePinned(int64_t bytes) {
  if (absl::Status status = CheckSize(bytes); !status.ok()) return status;
  void* data = nullptr;
  const size_t size = bytes > 0 ? static_cast<size_t>(bytes) : 1;
  const cudaError_t error = cudaMallocHost(&data, size);
  if (error == cudaSuccess) return data;
  return absl::ResourceExhaustedError(
      absl::StrCat("cannot pin ", bytes, " bytes of host memory: ", cudaGetErrorString(error),
                   ". Free some memory of this machine"));
}

void Runtime::FreePinned(void* data) { Require(cudaFreeHost(data), "freeing pinned memory"); }

void Runtime::Copy(void* to, const void* from, int64_t bytes) {
  Require(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, impl_->stream),
          "copying memory");
}

void Runtime::Zero(void* data, int64_t bytes) {
  Require(cudaMemsetAsync(data, 0, static_cast<size_t>(bytes), impl_->stream), "clearing memory");
}

void Runtime::Synchronize() {
  Require(cudaStreamSynchronize(impl_->stream), "waiting for its work");
}

int64_t Runtime::Mark() {
  Require(cudaEventRecord(impl_->events[impl_->marks % kEvents], impl_->stream), "marking a step");
  return impl_->marks++;
}

void Runtime::Wait(int64_t mark) {
  Require(cudaEventSynchronize(impl_->events[mark % kEvents]), "waiting for a step");
}

void Runtime::After(const Runtime& other, int64_t mark) {
  Require(cudaStreamWaitEvent(impl_->stream, other.impl_->events[mark % kEvents], 0),
          "waiting for the other stream");
}

void Runtime::BeginCapture() {
  Require(cudaStreamBeginCapture(impl_->stream, cudaStreamCaptureModeThreadLocal),
          "recording a graph");
}

bool Runtime::CaptureSpoilt() const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(impl_->stream, &status) == cudaSuccess &&
         status == cudaStreamCaptureStatusInvalidated;
}

std::optional<Graph> Runtime::EndCapture() {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaError_t error = cudaStreamEndCapture(impl_->stream, &graph);
  if (error == cudaSuccess) error = cudaGraphInstantiate(&exec, graph, 0);
  // What it takes of memory it takes here, where having none is a refusal.
  if (error == cudaSuccess) error = cudaGraphUpload(exec, impl_->stream);
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (error == cudaSuccess) return Graph(std::make_unique<Graph::Impl>(exec));
  if (exec != nullptr) cudaGraphExecDestroy(exec);
  cudaGetLastError();  // a refused graph is no lost device: forget it
  return std::nullopt;
}

void Runtime::Launch(const Graph& graph) {
  Require(cudaGraphLaunch(graph.impl_->exec(), impl_->stream), "replaying a graph");
}

}  // namespace catserve::cuda

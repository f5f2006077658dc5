// The backend of one NVIDIA GPU: its operations are started in order on one stream, and return at
// once; another beside it has a stream of its own. Weights of 16 bits take activations of their
// type; more than eight rows of F32 are rounded to it first. Attention of prompts over KV memory of
// 16 bits or less rounds queries and weights to BF16 (tensor cores); what is computed, sums above
// all, is F32. Runs are deterministic; that a row's bits do not depend on its batch is promised on
// the CPU alone.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace catserve::cuda {

// Memory that the backend takes for itself at start.
struct CudaMemory {
  // On the device, for what an operation needs between its kernels: rows are cut to fit it. One row
  // of logits takes 8 bytes for each id of the vocabulary.
  int64_t scratch_bytes = int64_t{128} << 20;
  // On the device, and twice pinned on the host: the lists of an operation must fit it, those of a
  // step should.
  int64_t upload_bytes = int64_t{32} << 20;
  // Twice pinned on the host: the results of an operation must fit it, those of a step should.
  int64_t download_bytes = int64_t{4} << 20;
};

// Buffers and matrices must not outlive the backend, which serves one thread at a time. Errors:
// UNAVAILABLE that says which of GPU, driver and cuBLAS is missing; RESOURCE_EXHAUSTED.
absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const CudaMemory& memory = {});

}  // namespace catserve::cuda

// Instances of the kernel for pieces with activations of 16 bits, which the seam does not reach.
#include "kernels/cuda/paged_attention_piece.cuh"

namespace catserve::cuda {

#define CATSERVE_PIECE(T, KV)                                  \
  template __global__ void PagedAttentionPiece<T, T, KV, 64>(  \
      const __grid_constant__ PagedAttentionArgs);             \
  template __global__ void PagedAttentionPiece<T, T, KV, 128>( \
      const __grid_constant__ PagedAttentionArgs);

CATSERVE_PIECE(BF16, BF16)
CATSERVE_PIECE(BF16, E4M3)
CATSERVE_PIECE(BF16, I8)
CATSERVE_PIECE(F16, F16)
CATSERVE_PIECE(F16, I8)

}  // namespace catserve::cuda

// Instances of the decode kernel for activations of 16 bits, which the seam does not reach yet.
#include "kernels/cuda/paged_attention_decode.cuh"

#include "kernels/cuda/attention_combine.cuh"

namespace catserve::cuda {

template <typename KV>
using Exact64 = TileLayout<KV, 64, true>;
template <typename KV>
using Exact128 = TileLayout<KV, 128, true>;
template <typename KV>
using UpTo256 = TileLayout<KV, 256, false>;

#define CATSERVE_DECODE(T, Layout, kGroup)                             \
  template __global__ void PagedAttentionDecode<T, Layout, kGroup, 1>( \
      const __grid_constant__ PagedAttentionArgs);                     \
  template __global__ void PagedAttentionDecode<T, Layout, kGroup, 8>( \
      const __grid_constant__ PagedAttentionArgs);

CATSERVE_DECODE(BF16, Exact64<BF16>, 1)
CATSERVE_DECODE(BF16, Exact64<BF16>, 2)
CATSERVE_DECODE(BF16, Exact64<BF16>, 4)
CATSERVE_DECODE(BF16, Exact128<BF16>, 1)
CATSERVE_DECODE(BF16, Exact128<BF16>, 4)
CATSERVE_DECODE(F16, Exact64<F16>, 1)
CATSERVE_DECODE(BF16, Exact64<E4M3>, 1)
CATSERVE_DECODE(BF16, Exact64<I8>, 1)
CATSERVE_DECODE(F16, UpTo256<I8>, 1)

template __global__ void AttentionCombine<BF16>(const __grid_constant__ PagedAttentionArgs);
template __global__ void AttentionCombine<F16>(const __grid_constant__ PagedAttentionArgs);

}  // namespace catserve::cuda

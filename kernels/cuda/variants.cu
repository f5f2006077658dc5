// Instances that the seam does not reach: its activations are F32, and its KV memory has 16 bits or
// more. Compiled so that they stay free of spills; tests emulate them.
#include "kernels/cuda/block_attention.cuh"
#include "kernels/cuda/copy_pages.cuh"
#include "kernels/cuda/mat_vec.cuh"
#include "kernels/cuda/prepare_heads.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/cuda/silu_gate.cuh"

namespace catserve::cuda {

#define CATSERVE_FOR_ACTIVATIONS(T)                                                         \
  template __global__ void RmsNorm<T>(const __grid_constant__ RmsNormArgs);                 \
  template __global__ void SiluGate<T>(const __grid_constant__ SiluGateArgs);               \
  template __global__ void PrepareHeads<T, T>(const __grid_constant__ PrepareHeadsArgs);    \
  template __global__ void PrepareHeads<T, E4M3>(const __grid_constant__ PrepareHeadsArgs); \
  template __global__ void PrepareHeads<T, I8>(const __grid_constant__ PrepareHeadsArgs);   \
  template __global__ void BlockAttention<T, TileLayout<T, 64, true>>(                      \
      const __grid_constant__ BlockAttentionArgs);                                          \
  template __global__ void BlockAttention<T, TileLayout<T, 256, false>>(                    \
      const __grid_constant__ BlockAttentionArgs);

CATSERVE_FOR_ACTIVATIONS(BF16)
CATSERVE_FOR_ACTIVATIONS(F16)

#define CATSERVE_MAT_VEC(X, W)                                                  \
  template __global__ void MatVec<X, W, 1>(const __grid_constant__ MatVecArgs); \
  template __global__ void MatVec<X, W, 2>(const __grid_constant__ MatVecArgs); \
  template __global__ void MatVec<X, W, 4>(const __grid_constant__ MatVecArgs); \
  template __global__ void MatVec<X, W, 8>(const __grid_constant__ MatVecArgs);

CATSERVE_MAT_VEC(BF16, BF16)
CATSERVE_MAT_VEC(F16, F16)
CATSERVE_MAT_VEC(BF16, I8)

}  // namespace catserve::cuda

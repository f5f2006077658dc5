// The vocabulary of device.h as nvcc's intrinsics.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>
#include <cstring>

#include "kernels/backend_lost.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/number.h"
#include "kernels/cuda/operations.h"

#define CATSERVE_UNROLL _Pragma("unroll")
#define CATSERVE_SHARED(Type, name) __shared__ Type name

namespace catserve::cuda {

// While a graph is recorded: whoever ends the recording is told that it is spoilt.
inline bool SpoilsCapture(cudaError_t error) {
  return error >= cudaErrorStreamCaptureUnsupported && error <= cudaErrorStreamCaptureWrongThread;
}

template <typename Args>
void Launch(void (*kernel)(Args), const LaunchShape& shape, const Args& args, Stream stream) {
  kernel<<<dim3(shape.blocks_x, shape.blocks_y), shape.threads, 0,
           static_cast<cudaStream_t>(stream.handle)>>>(args);
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess || SpoilsCapture(error)) return;
  BackendLost("launching a kernel", cudaGetErrorString(error));
}

__device__ inline int ThreadX() { return static_cast<int>(threadIdx.x); }
__device__ inline int BlockX() { return static_cast<int>(blockIdx.x); }
__device__ inline int BlockY() { return static_cast<int>(blockIdx.y); }
__device__ inline int BlocksX() { return static_cast<int>(gridDim.x); }
__device__ inline int ThreadsPerBlock() { return static_cast<int>(blockDim.x); }

__device__ inline void SyncBlock() { __syncthreads(); }
__device__ inline void SyncWarp() { __syncwarp(); }

template <typename T>
__device__ inline T Shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
template <typename T>
__device__ inline T ShuffleXor(T value, int lanes) {
  return __shfl_xor_sync(0xffffffffu, value, lanes);
}

__device__ inline uint32_t AtomicAdd(uint32_t* sum, uint32_t value) {
  return atomicAdd(sum, value);
}
__device__ inline uint64_t AtomicAdd(uint64_t* sum, uint64_t value) {
  return atomicAdd(reinterpret_cast<unsigned long long*>(sum), value);
}

// Words of up to 16 bytes that were loaded at once; two bytes are half of one.
template <int kBytes>
struct Words {
  uint32_t word[(kBytes + 3) / 4];
};
template <int kBytes>
__device__ inline Words<kBytes> LoadVector(const void* from) {
  Words<kBytes> words;
  if constexpr (kBytes == 16) {
    const uint4 v = __ldg(static_cast<const uint4*>(from));
    words = {{v.x, v.y, v.z, v.w}};
  } else if constexpr (kBytes == 8) {
    const uint2 v = __ldg(static_cast<const uint2*>(from));
    words = {{v.x, v.y}};
  } else if constexpr (kBytes == 4) {
    words = {{__ldg(static_cast<const uint32_t*>(from))}};
  } else {
    static_assert(kBytes == 2);
    words = {{__ldg(static_cast<const uint16_t*>(from))}};
  }
  return words;
}

template <int kBytes>
__device__ inline void StoreVector(void* to, const Words<kBytes>& words) {
  static_assert(kBytes == 16);
  *static_cast<uint4*>(to) = make_uint4(words.word[0], words.word[1], words.word[2], words.word[3]);
}

// Two neighbouring numbers of 16 bits, anywhere in memory.
template <typename T>
__device__ inline uint32_t LoadPair(const T* from) {
  static_assert(sizeof(T) == 2);
  return *reinterpret_cast<const uint32_t*>(from);
}
template <typename T>
__device__ inline void StorePair(T* to, uint32_t pair) {
  static_assert(sizeof(T) == 2);
  *reinterpret_cast<uint32_t*>(to) = pair;
}

__device__ inline float ToFloat(float x) { return x; }
__device__ inline float ToFloat(BF16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}
__device__ inline float ToFloat(F16 x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ inline float ToFloat(E4M3 x) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(x.bits, __NV_E4M3)));
}
__device__ inline float ToFloat(I8 x) { return static_cast<float>(x); }

template <typename T>
__device__ inline T FromFloat(float x);
template <>
__device__ inline float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ inline BF16 FromFloat<BF16>(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}
template <>
__device__ inline F16 FromFloat<F16>(float x) {
  return {__half_as_ushort(__float2half_rn(x))};
}
template <>
__device__ inline E4M3 FromFloat<E4M3>(float x) {
  return {__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3)};
}
template <>
__device__ inline I8 FromFloat<I8>(float x) {
  return static_cast<I8>(__float2int_rn(fminf(fmaxf(x, -127.0f), 127.0f)));
}

__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline uint64_t MulHigh(uint64_t a, uint64_t b) { return __umul64hi(a, b); }

// d += a b for a tile of 16 x 8 with 16 products each; fragments as PTX lays out mma.m16n8k16.
template <typename T>
__device__ inline void MatrixMultiplyAdd(float (&d)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2]) {
  if constexpr (sizeof(T) == 2 && __is_same(T, BF16)) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

}  // namespace catserve::cuda

// Before attention, in place on qkv: norm of every query and key head if there are weights, then
// rotation; keys and values go on into KV memory, narrowed from F32 and not from what qkv holds.
//
//   u, v = elements i and i + head_dim/2 of a head:  u' = u cos - v sin,  v' = v cos + u sin
//
// A warp to a head: a lane holds both elements of its pairs, so rotation needs no exchange.
// The CPU's twin: PrepareHeads of kernels/cpu/attention.cc.
#pragma once

#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/kv_scale.h"
#include "kernels/cuda/kv_slab.h"
#include "kernels/cuda/operations.h"

namespace catserve::cuda {

inline constexpr int kPrepareWarps = 4;
inline constexpr int kPrepareThreads = kPrepareWarps * kWarpThreads;
inline constexpr int kPairsMax = 4;  // of a lane: head sizes up to 256

inline LaunchShape PrepareHeadsShape(const PrepareHeadsArgs& args, int rows) {
  return {
      .blocks_x = static_cast<uint32_t>(rows),
      .blocks_y = static_cast<uint32_t>(DivideUp(args.heads + 2 * args.kv.kv_heads, kPrepareWarps)),
      .threads = kPrepareThreads};
}

// The pairs of one head that a lane holds: (i, i + half) for i = Lane(), Lane() + 32, ...
struct HeadPairs {
  float u[kPairsMax];
  float v[kPairsMax];

  // The head whose numbers begin at `at` of args.qkv.
  __device__ void Load(const PrepareHeadsArgs& args, int64_t at, int half) {
    CATSERVE_UNROLL
    for (int p = 0; p < kPairsMax; ++p) {
      const int i = p * kWarpThreads + Lane();
      u[p] = i < half ? LoadActivation(args.qkv, args.type, at + i) : 0.0f;
      v[p] = i < half ? LoadActivation(args.qkv, args.type, at + i + half) : 0.0f;
    }
  }
  __device__ void PutBack(const PrepareHeadsArgs& args, int64_t at, int half) const {
    CATSERVE_UNROLL
    for (int p = 0; p < kPairsMax; ++p) {
      const int i = p * kWarpThreads + Lane();
      if (i >= half) continue;
      StoreActivation(args.qkv, args.type, at + i, u[p]);
      StoreActivation(args.qkv, args.type, at + i + half, v[p]);
    }
  }

  __device__ void Norm(const float* weight, int half, float eps) {
    float squares = 0.0f;
    CATSERVE_UNROLL
    for (int p = 0; p < kPairsMax; ++p) squares = fmaf(u[p], u[p], fmaf(v[p], v[p], squares));
    const float mean = SumOverLanes(squares) / static_cast<float>(2 * half);
    const float scale = 1.0f / sqrtf(mean + eps);
    CATSERVE_UNROLL
    for (int p = 0; p < kPairsMax; ++p) {
      const int i = p * kWarpThreads + Lane();
      if (i >= half) continue;
      u[p] = u[p] * scale * weight[i];
      v[p] = v[p] * scale * weight[i + half];
    }
  }

  __device__ void Rotate(const float* rotary, int half) {
    CATSERVE_UNROLL
    for (int p = 0; p < kPairsMax; ++p) {
      const int i = p * kWarpThreads + Lane();
      if (i >= half) continue;
      const float cos = rotary[i];
      const float sin = rotary[i + half];
      const float rotated = fmaf(u[p], cos, -(v[p] * sin));
      v[p] = fmaf(v[p], cos, u[p] * sin);
      u[p] = rotated;
    }
  }

  // The largest magnitude, NaN if there is one: by bits, which order as magnitudes do with NaN
  // above all, where fmaxf would drop it.
  __device__ float Largest() const {
    uint32_t largest = 0;
    CATSERVE_UNROLL
    for (int p = 0; p < kPairsMax; ++p) {
      for (const float x : {fabsf(u[p]), fabsf(v[p])}) {
        const uint32_t bits = BitsOf(x);
        largest = bits > largest ? bits : largest;
      }
    }
    CATSERVE_UNROLL
    for (int step = 1; step < kWarpThreads; step *= 2) {
      const uint32_t other = ShuffleXor(largest, step);
      largest = other > largest ? other : largest;
    }
    return FloatOf(largest);
  }

  __device__ void Clear() {
    CATSERVE_UNROLL
    for (int p = 0; p < kPairsMax; ++p) u[p] = v[p] = 0.0f;
  }

  // Into KV memory: what is written is divided by `scale`.
  template <typename T>
  __device__ void Store(T* head, int half, float scale) const {
    CATSERVE_UNROLL
    for (int p = 0; p < kPairsMax; ++p) {
      const int i = p * kWarpThreads + Lane();
      if (i >= half) continue;
      head[i] = FromFloat<T>(u[p] / scale);
      head[i + half] = FromFloat<T>(v[p] / scale);
    }
  }
};

template <typename KV>
__device__ inline void WriteEntry(const KvSlab& kv, int64_t index, HeadPairs& pairs) {
  KV* const head = static_cast<KV*>(kv.data) + index * kv.head_dim;
  if constexpr (kHasScale<KV>) {
    const BF16 stored = EntryScale<KV>(pairs.Largest());
    const float scale = ToFloat(stored);
    if (Lane() == 0) kv.scales[index] = stored;
    const bool holds = scale > 0.0f && scale < INFINITY;
    if (!holds) pairs.Clear();
    pairs.Store(head, kv.head_dim / 2, holds ? scale : 1.0f);
  } else {
    pairs.Store(head, kv.head_dim / 2, 1.0f);
  }
}

template <typename KV>
__global__ void __launch_bounds__(kPrepareThreads)
    PrepareHeads(const __grid_constant__ PrepareHeadsArgs args) {
  const int head = BlockY() * kPrepareWarps + WarpInBlock();
  const int first_value = args.heads + args.kv.kv_heads;
  if (head >= first_value + args.kv.kv_heads) return;
  const int row = BlockX();
  const int half = args.kv.head_dim / 2;
  const int64_t at = row * args.stride + int64_t{head} * args.kv.head_dim;
  HeadPairs pairs;
  pairs.Load(args, at, half);
  if (head < first_value) {
    const float* const norm = head < args.heads ? args.q_norm : args.k_norm;
    if (norm != nullptr) pairs.Norm(norm, half, args.norm_eps);
    pairs.Rotate(args.rotary + int64_t{args.positions[row]} * args.kv.head_dim, half);
    pairs.PutBack(args, at, half);
  }
  if (head < args.heads || args.slots == nullptr || args.slots[row] < 0) return;
  const int64_t page = args.slots[row] / kPageEntries;
  const int entry = static_cast<int>(args.slots[row] % kPageEntries);
  const KvPart part = head < first_value ? kKey : kValue;
  const int kv_head = head - (part == kKey ? args.heads : first_value);
  WriteEntry<KV>(args.kv, EntryIndex(args.kv, page, kv_head, part, entry), pairs);
}

}  // namespace catserve::cuda

// What one warp does in attention over few query heads: softmax over entries as they stream by,
// never holding more than a tile of them (Milakov and Gimelshein, 2018).
//
//   m' = max(m, max_e s_e)   sum' = sum 2^(m - m') + sum_e 2^(s_e - m')
//   out' = out 2^(m - m') + sum_e 2^(s_e - m') v_e     with s_e = q . k_e log2(e) / sqrt(head_dim)
//
// Neighbouring lanes hold one entry between them and load it 16 bytes a lane, straight into
// registers: no shared memory and no barrier, K and V of a whole tile on their way together.
#pragma once

#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda/kv_slab.h"

namespace catserve::cuda {

// Entries of any multiple of 8 elements are aligned for this: those of one byte a number are not
// where a head size is no multiple of 16.
template <typename KV, bool kExact>
inline constexpr int kEntryVectorBytes = kExact || sizeof(KV) > 1 ? 16 : 8;

// How the lanes share the entries of a tile. kHeadDim: the head size itself if kExact, else the
// most it may be (any multiple of kVector; lanes beyond it are idle).
template <typename Stored, int kDim, bool kIsExact,
          int kBytes = kEntryVectorBytes<Stored, kIsExact>>
struct TileLayout {
  using KV = Stored;
  static constexpr int kHeadDim = kDim;
  static constexpr bool kExact = kIsExact;
  static constexpr int kVectorBytes = kBytes;
  static constexpr int kVector = kVectorBytes / sizeof(KV);
  static constexpr int kLanes = kHeadDim / kVector < 32 ? kHeadDim / kVector : 32;
  static constexpr int kVectors = kHeadDim / kVector / kLanes;  // that a lane holds of an entry
  static constexpr int kElements = kVectors * kVector;
  static constexpr int kTogether = kWarpThreads / kLanes;  // entries in one load of the warp
  static constexpr int kLoadsMax = 8 / kVectors;           // bounds the registers
  static constexpr int kLoads =
      kPageEntries / kTogether < kLoadsMax ? kPageEntries / kTogether : kLoadsMax;
  static constexpr int kTile = kLoads * kTogether;  // entries; divides a page
  static_assert(kPageEntries % kTile == 0 && kLanes * kVectors * kVector == kHeadDim);

  // The first element of the lane's vector.
  __device__ static int Element(int vector) {
    return (vector * kLanes + Lane() % kLanes) * kVector;
  }
  __device__ static int EntryOf(int load) { return load * kTogether + Lane() / kLanes; }
};

// Head sizes that are even and no more: two elements at a time.
template <typename KV>
using NarrowLayout = TileLayout<KV, 256, false, 2 * sizeof(KV)>;

// Entry i of a tile lies `stride` elements after entry i - 1.
template <typename KV>
struct TileSource {
  const KV* keys;
  const KV* values;
  const BF16* key_scales;  // one an entry, for types with a scale
  const BF16* value_scales;
  int64_t stride;
  int entries;  // of the tile that are seen; the others are never read
  int head_dim;
};

template <class Layout>
struct Tile {
  using Vector = Words<Layout::kVectorBytes>;
  Vector keys[Layout::kLoads][Layout::kVectors];
  Vector values[Layout::kLoads][Layout::kVectors];
  float key_scale[Layout::kLoads];
  float value_scale[Layout::kLoads];

  // What is not seen becomes zero: a page's tail holds anything, and 0 * NaN is NaN.
  __device__ void Load(const TileSource<typename Layout::KV>& from) {
    CATSERVE_UNROLL
    for (int i = 0; i < Layout::kLoads; ++i) {
      const int entry = Layout::EntryOf(i);
      const bool seen = entry < from.entries;
      CATSERVE_UNROLL
      for (int v = 0; v < Layout::kVectors; ++v) {
        const int element = Layout::Element(v);
        const int64_t at = entry * from.stride + element;
        const bool read = seen && (Layout::kExact || element < from.head_dim);
        keys[i][v] = read ? LoadVector<Layout::kVectorBytes>(from.keys + at) : Vector{};
        values[i][v] = read ? LoadVector<Layout::kVectorBytes>(from.values + at) : Vector{};
      }
      if constexpr (kHasScale<typename Layout::KV>) {
        key_scale[i] = seen ? ToFloat(from.key_scales[entry]) : 0.0f;
        value_scale[i] = seen ? ToFloat(from.value_scales[entry]) : 0.0f;
      } else {
        key_scale[i] = value_scale[i] = 1.0f;
      }
    }
  }
};

template <class Layout>
__device__ inline void Unpack(float (&x)[Layout::kElements],
                              const Words<Layout::kVectorBytes> (&vectors)[Layout::kVectors]) {
  using KV = typename Layout::KV;
  CATSERVE_UNROLL
  for (int v = 0; v < Layout::kVectors; ++v) {
    KV stored[Layout::kVector];
    memcpy(stored, &vectors[v], sizeof(stored));
    CATSERVE_UNROLL
    for (int j = 0; j < Layout::kVector; ++j) x[v * Layout::kVector + j] = ToFloat(stored[j]);
  }
}

// The state of kGroup query heads that share a key/value head.
template <class Layout, int kGroup>
struct WarpAttention {
  float q[kGroup][Layout::kElements];  // times log2(e) / sqrt(head_dim)
  float max[kGroup];
  float sum[kGroup];
  float out[kGroup][Layout::kElements];

  __device__ void Clear() {
    CATSERVE_UNROLL
    for (int g = 0; g < kGroup; ++g) {
      max[g] = -INFINITY;
      sum[g] = 0.0f;
      CATSERVE_UNROLL
      for (int j = 0; j < Layout::kElements; ++j) q[g][j] = out[g][j] = 0.0f;
    }
  }

  // kGroup heads of head_dim elements, one after another from `at` on.
  __device__ void LoadQueries(const void* q, DType type, int64_t at, int head_dim,
                              float scale_log2) {
    CATSERVE_UNROLL
    for (int g = 0; g < kGroup; ++g) {
      CATSERVE_UNROLL
      for (int j = 0; j < Layout::kElements; ++j) {
        const int element = Layout::Element(j / Layout::kVector) + j % Layout::kVector;
        if (!Layout::kExact && element >= head_dim) continue;
        this->q[g][j] = LoadActivation(q, type, at + g * head_dim + element) * scale_log2;
      }
    }
  }

  // REQUIRES: entries > 0 of the tile are seen.
  __device__ void Attend(const Tile<Layout>& tile, int entries) {
    float score[kGroup][Layout::kLoads];
    Score(score, tile, entries);
    CATSERVE_UNROLL
    for (int g = 0; g < kGroup; ++g) Rescale(score[g], g);
    CATSERVE_UNROLL
    for (int i = 0; i < Layout::kLoads; ++i) {
      float v[Layout::kElements];
      Unpack<Layout>(v, tile.values[i]);
      CATSERVE_UNROLL
      for (int g = 0; g < kGroup; ++g) {
        const float p = score[g][i] * tile.value_scale[i];
        CATSERVE_UNROLL
        for (int j = 0; j < Layout::kElements; ++j) out[g][j] = fmaf(p, v[j], out[g][j]);
      }
    }
  }

  // Adds up what the lanes saw: then every lane holds the sums of its elements.
  __device__ void Finish() {
    CATSERVE_UNROLL
    for (int step = Layout::kLanes; step < kWarpThreads; step *= 2) {
      CATSERVE_UNROLL
      for (int g = 0; g < kGroup; ++g) {
        sum[g] += ShuffleXor(sum[g], step);
        CATSERVE_UNROLL
        for (int j = 0; j < Layout::kElements; ++j) out[g][j] += ShuffleXor(out[g][j], step);
      }
    }
  }

 private:
  __device__ void Score(float (&score)[kGroup][Layout::kLoads], const Tile<Layout>& tile,
                        int entries) const {
    CATSERVE_UNROLL
    for (int i = 0; i < Layout::kLoads; ++i) {
      float k[Layout::kElements];
      Unpack<Layout>(k, tile.keys[i]);
      CATSERVE_UNROLL
      for (int g = 0; g < kGroup; ++g) {
        float dot = 0.0f;
        CATSERVE_UNROLL
        for (int j = 0; j < Layout::kElements; ++j) dot = fmaf(q[g][j], k[j], dot);
        dot = SumOverLanes<Layout::kLanes>(dot) * tile.key_scale[i];
        score[g][i] = Layout::EntryOf(i) < entries ? dot : -INFINITY;  // chosen, not added to
      }
    }
  }

  // Turns scores into weights relative to the new maximum.
  __device__ void Rescale(float (&score)[Layout::kLoads], int g) {
    float largest = max[g];
    CATSERVE_UNROLL
    for (int i = 0; i < Layout::kLoads; ++i) largest = fmaxf(largest, score[i]);
    CATSERVE_UNROLL
    for (int step = Layout::kLanes; step < kWarpThreads; step *= 2) {
      largest = fmaxf(largest, ShuffleXor(largest, step));
    }
    const float shrink = Exp2(max[g] - largest);  // `largest` is finite: an entry is seen
    max[g] = largest;
    sum[g] *= shrink;
    CATSERVE_UNROLL
    for (int j = 0; j < Layout::kElements; ++j) out[g][j] *= shrink;
    CATSERVE_UNROLL
    for (int i = 0; i < Layout::kLoads; ++i) sum[g] += score[i] = Exp2(score[i] - largest);
  }
};

}  // namespace catserve::cuda

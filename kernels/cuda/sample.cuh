// Draws a token from each row of logits by the rule of kernels/sampling.h, whose steps the comments
// name: for equal logits the same token as the CPU, exactly. No sort: every decision is one on
// integers whose sums do not depend on their order. A block to a row.
#pragma once

#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/logits.cuh"
#include "kernels/cuda/operations.h"

namespace catserve::cuda {

inline constexpr int kSampleThreads = 512;
inline constexpr int kDigitBits = 11;
inline constexpr int kDigits = 1 << kDigitBits;
static_assert(kRankBits % kDigitBits == 0 && kDigits % kSampleThreads == 0);

inline LaunchShape SampleShape(int rows) {
  return {.blocks_x = static_cast<uint32_t>(rows), .threads = kSampleThreads};
}

struct SampleShared {
  BlockScratch scratch;
  uint64_t bins[kDigits];
  uint64_t digit;      // of the bin in which the sum reaches what is needed
  uint64_t remaining;  // what is needed of that bin; all of it: `exact`
  uint64_t exact;
};

// One row's logits after steps 1 and 2, and what is left of them.
struct Candidates {
  const float* z;
  int vocab_size;
  float max;
  float scale;
  uint64_t cut;  // lowest rank that is kept

  __device__ uint64_t WeightOf(int id) const { return Weight((z[id] - max) * scale); }
  // 0: dropped, or too unlikely to weigh anything.
  __device__ uint64_t KeptWeight(int id) const { return Rank(z[id], id) >= cut ? WeightOf(id) : 0; }
};

// Step 2, penalties: counts of seen ids first, then each id on its own.
__device__ inline void Penalize(float* z, uint32_t* counts, int vocab_size, const SampleRow& row) {
  constexpr uint32_t kSeen = 0x80000000u;
  const auto inside = [&](int id) { return id >= 0 && id < vocab_size; };
  for (int id = ThreadX(); id < vocab_size; id += kSampleThreads) counts[id] = 0;
  SyncBlock();
  for (int i = ThreadX(); i < row.prompt_count; i += kSampleThreads) {
    if (inside(row.prompt[i])) counts[row.prompt[i]] = kSeen;
  }
  SyncBlock();
  for (int i = ThreadX(); i < row.generated_count; i += kSampleThreads) {
    if (inside(row.generated[i])) AtomicAdd(&counts[row.generated[i]], 1u);
  }
  SyncBlock();
  for (int id = ThreadX(); id < vocab_size; id += kSampleThreads) {
    if (counts[id] == 0) continue;
    const uint32_t count = counts[id] & ~kSeen;
    float x = z[id] > 0 ? z[id] / row.repetition_penalty : z[id] * row.repetition_penalty;
    if (count > 0) {
      const float repeated = row.frequency_penalty * static_cast<float>(count);
      x -= row.presence_penalty + repeated;
    }
    z[id] = CleanLogit(x);
  }
  SyncBlock();
}

// Steps 1 and 2. An id's biases are added in turn, by the one thread whose id it is.
__device__ inline void Adjust(float* z, const float* logits, uint32_t* counts, int vocab_size,
                              const SampleRow& row) {
  for (int id = ThreadX(); id < vocab_size; id += kSampleThreads) z[id] = CleanLogit(logits[id]);
  SyncBlock();
  const auto mine = [&](int id) {
    return id >= 0 && id < vocab_size && id % kSampleThreads == ThreadX();
  };
  for (int i = 0; i < row.bias_count; ++i) {
    if (mine(row.bias_ids[i])) z[row.bias_ids[i]] += row.biases[i];
  }
  SyncBlock();
  if (row.penalizes != 0) Penalize(z, counts, vocab_size, row);
  for (int i = 0; i < row.bias_count; ++i) {
    if (mine(row.bias_ids[i])) z[row.bias_ids[i]] = CleanLogit(z[row.bias_ids[i]]);
  }
  SyncBlock();
}

__device__ inline void Forbid(float* z, int vocab_size, const SampleRow& row) {
  for (int i = ThreadX(); i < row.forbidden_count; i += kSampleThreads) {
    const int id = row.forbidden[i];
    if (id >= 0 && id < vocab_size) z[id] = -INFINITY;
  }
  SyncBlock();
}

__device__ inline int Likeliest(const float* z, int vocab_size, BlockScratch& scratch) {
  uint64_t best = 0;
  for (int id = ThreadX(); id < vocab_size; id += kSampleThreads) {
    best = Larger()(best, Rank(z[id], id));
  }
  return IdOf(BlockReduce<kSampleThreads>(best, Larger(), scratch));
}

enum class Measure { kCount, kMass };

// One digit of FindCut: the bins' sums from the highest down, and in which of them `need` is met.
__device__ inline void FindDigit(SampleShared& shared, uint64_t need) {
  constexpr int kOwn = kDigits / kSampleThreads;  // bins of a thread, the highest first
  const int first = kDigits - 1 - ThreadX() * kOwn;
  uint64_t own = 0;
  for (int i = 0; i < kOwn; ++i) own += shared.bins[first - i];
  uint64_t total = 0;
  uint64_t before = ExclusiveScan<kSampleThreads>(own, total, shared.scratch);
  if (before < need && need <= before + own) {  // one thread, since need <= total
    int i = 0;
    while (before + shared.bins[first - i] < need) before += shared.bins[first - i++];
    shared.digit = static_cast<uint64_t>(first - i);
    shared.remaining = need - before;
    shared.exact = shared.bins[first - i] == need - before ? 1 : 0;
  }
  SyncBlock();
}

// Step 5: raises the cut to the lowest rank of the shortest prefix, likeliest first, that measures
// `need`. Eleven bits of the rank at a time. What is dropped already ranks below what is kept, so
// it never counts. REQUIRES: 0 < need <= what all candidates measure.
template <Measure kMeasure>
__device__ inline void FindCut(Candidates& candidates, uint64_t need, SampleShared& shared) {
  uint64_t prefix = 0;
  for (int shift = kRankBits - kDigitBits; shift >= 0; shift -= kDigitBits) {
    for (int i = ThreadX(); i < kDigits; i += kSampleThreads) shared.bins[i] = 0;
    SyncBlock();
    for (int id = ThreadX(); id < candidates.vocab_size; id += kSampleThreads) {
      const uint64_t rank = Rank(candidates.z[id], id);
      if (rank >> (shift + kDigitBits) != prefix) continue;
      const uint64_t weight = candidates.WeightOf(id);
      if (weight == 0) continue;
      AtomicAdd(&shared.bins[rank >> shift & (kDigits - 1)],
                kMeasure == Measure::kCount ? uint64_t{1} : weight);
    }
    SyncBlock();
    FindDigit(shared, need);
    prefix = prefix << kDigitBits | shared.digit;
    need = shared.remaining;
    const bool exact = shared.exact != 0;
    SyncBlock();
    if (exact || shift == 0) {
      candidates.cut = Larger()(candidates.cut, prefix << shift);
      return;
    }
  }
}

template <Measure kMeasure>
__device__ inline uint64_t MeasureAll(const Candidates& candidates, BlockScratch& scratch) {
  uint64_t sum = 0;
  for (int id = ThreadX(); id < candidates.vocab_size; id += kSampleThreads) {
    const uint64_t weight = candidates.KeptWeight(id);
    sum += kMeasure == Measure::kMass ? weight : weight > 0 ? 1 : 0;
  }
  return BlockReduce<kSampleThreads>(sum, Add(), scratch);
}

__device__ inline void StoreDraw(int32_t id, const SampleArgs& args, const SampleRow& row) {
  args.ids[BlockX()] = id;
  if (row.drawn_at != nullptr) *row.drawn_at = id;
}

// Step 6: the kept weights end to end in order of id. The id if it is this thread's to find: one
// thread finds it; else -1.
__device__ inline int Draw(const Candidates& candidates, const SampleRow& row,
                           BlockScratch& scratch) {
  const int share = (candidates.vocab_size + kSampleThreads - 1) / kSampleThreads;
  const int first = ThreadX() * share;
  const int end = first + share < candidates.vocab_size ? first + share : candidates.vocab_size;
  const auto weight = [&](int id) {
    const uint64_t kept = candidates.KeptWeight(id);
    return kept < row.least ? 0 : kept;
  };
  uint64_t own = 0;
  for (int id = first; id < end; ++id) own += weight(id);
  uint64_t total = 0;
  uint64_t before = ExclusiveScan<kSampleThreads>(own, total, scratch);
  const uint64_t target = MulHigh(row.word, total);
  if (target < before || target >= before + own) return -1;
  int id = first;
  while (before + weight(id) <= target) before += weight(id++);
  return id;
}

__global__ void __launch_bounds__(kSampleThreads) Sample(const __grid_constant__ SampleArgs args) {
  CATSERVE_SHARED(SampleShared, shared);
  if (BlockX() >= *args.count) return;
  const int64_t at = int64_t{BlockX()} * args.vocab_size;
  const SampleRow row = args.rows[BlockX()];
  const float* const logits = args.logits + BlockX() * args.stride;
  float* const z = args.z + at;
  int best = 0;
  for (bool forbid = true;; forbid = false) {
    Adjust(z, logits, args.counts + at, args.vocab_size, row);
    if (forbid) Forbid(z, args.vocab_size, row);
    best = Likeliest(z, args.vocab_size, shared.scratch);
    if (z[best] != -INFINITY) break;  // else every id is forbidden: then none is
    SyncBlock();
  }
  if (row.greedy != 0) {
    if (ThreadX() == 0) StoreDraw(best, args, row);
    return;
  }
  Candidates candidates{z, args.vocab_size, z[best], row.scale, 0};
  if (row.top_k > 0 && row.top_k < args.vocab_size) {
    const uint64_t all = MeasureAll<Measure::kCount>(candidates, shared.scratch);
    if (all > static_cast<uint64_t>(row.top_k)) {
      FindCut<Measure::kCount>(candidates, static_cast<uint64_t>(row.top_k), shared);
    }
  }
  if (!(row.top_p >= 1.0f)) {
    const uint64_t all = MeasureAll<Measure::kMass>(candidates, shared.scratch);
    const double part = static_cast<double>(all) * static_cast<double>(row.top_p);
    FindCut<Measure::kMass>(candidates, part >= 1.0 ? static_cast<uint64_t>(part) : 1, shared);
  }
  const int id = Draw(candidates, row, shared.scratch);
  if (id >= 0) StoreDraw(id, args, row);
}

}  // namespace catserve::cuda

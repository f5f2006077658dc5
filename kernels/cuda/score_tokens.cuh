// log softmax(logits[row])[target], and the likeliest ids with theirs; logits as the model gave
// them, cleaned. A block to a row. Rows come in blocks of at most 512, so that logits stay bounded.
// The CPU's twin: Score of kernels/cpu/sampler.cc.
#pragma once

#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/logits.cuh"
#include "kernels/cuda/operations.h"

namespace catserve::cuda {

inline constexpr int kScoreThreads = 256;

inline LaunchShape ScoreTokensShape(int rows) {
  return {.blocks_x = static_cast<uint32_t>(rows), .threads = kScoreThreads};
}

// The highest rank below `below`; 0 if there is none.
__device__ inline uint64_t BestBelow(const float* logits, int vocab_size, uint64_t below,
                                     BlockScratch& scratch) {
  uint64_t best = 0;
  for (int id = ThreadX(); id < vocab_size; id += kScoreThreads) {
    const uint64_t rank = Rank(CleanLogit(logits[id]), id);
    if (rank < below && rank > best) best = rank;
  }
  return BlockReduce<kScoreThreads>(best, Larger(), scratch);
}

__global__ void __launch_bounds__(kScoreThreads)
    ScoreTokens(const __grid_constant__ ScoreTokensArgs args) {
  CATSERVE_SHARED(BlockScratch, scratch);
  const int row = BlockX();
  const float* const logits = args.logits + row * args.stride;
  const uint64_t best = BestBelow(logits, args.vocab_size, uint64_t{1} << kRankBits, scratch);
  const float max = CleanLogit(logits[IdOf(best)]);
  float sum = 0.0f;
  for (int id = ThreadX(); id < args.vocab_size; id += kScoreThreads) {
    sum += Exp2((CleanLogit(logits[id]) - max) * 1.44269504f);
  }
  const float total = BlockReduce<kScoreThreads>(sum, Add(), scratch);
  const double log_sum = log(static_cast<double>(total));
  const auto logprob = [&](int id) {
    return static_cast<float>(static_cast<double>(CleanLogit(logits[id])) - max - log_sum);
  };
  if (ThreadX() == 0) args.logprobs[row] = logprob(args.targets[row]);
  uint64_t rank = best;
  for (int n = 0; n < args.top_n[row]; ++n) {
    if (n > 0) rank = BestBelow(logits, args.vocab_size, rank, scratch);
    if (ThreadX() != 0) continue;
    args.top_ids[int64_t{row} * args.top_max + n] = IdOf(rank);
    args.top_logprobs[int64_t{row} * args.top_max + n] = logprob(IdOf(rank));
  }
  // The rest is copied to the host with it.
  for (int n = args.top_n[row] + ThreadX(); n < args.top_max; n += kScoreThreads) {
    args.top_ids[int64_t{row} * args.top_max + n] = 0;
    args.top_logprobs[int64_t{row} * args.top_max + n] = 0;
  }
}

}  // namespace catserve::cuda

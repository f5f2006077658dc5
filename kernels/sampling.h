// The exact rule by which a token is drawn: shared by every backend, so that equal logits give
// equal tokens on all of them. Every step is an F32 operation rounded once (no contraction), or
// one on integers. Ids outside [0, vocab_size) in any list are ignored.
//
//  1. z = logits, with NaN and -inf replaced by the lowest finite F32 and +inf by the largest.
//  2. In this order: z += bias (each pair in turn); for every id seen in prompt or generated
//     z = z > 0 ? z / repetition : z * repetition; for every id seen in generated
//     z = z - (presence + frequency * count); all of these cleaned again as in 1. Then the
//     forbidden ids get -inf; if that leaves none, the list of forbidden ids is ignored.
//  3. temperature 0: the argmax of z, lowest id on ties. Otherwise:
//  4. y = (z - max z) * min((1 / temperature) * 1.44269504, largest F32); the weight of an id is
//     SampleWeight(y). Ids are ranked by z, likeliest first, lower ids first among equals.
//  5. top-k keeps the first top_k ids of that order (0: all). top-p then keeps its shortest prefix
//     whose mass reaches max(1, trunc(double(mass of what is left) * double(top_p))) (>= 1: all).
//     min-p then drops ids of weight below trunc(2^40 * double(min(min_p, 1))).
//  6. The kept weights are laid end to end in order of id, and the first id whose cumulative
//     weight exceeds the high 64 bits of RandomWord(seed, choice, position) * (kept mass) is drawn.
//
// Log-probabilities are of the logits after step 1 alone: as the model gave them.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace catserve {

// Ids are plain int32 here: the kernels know nothing of the engine.
struct SampleSpec {
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::span<const std::pair<int32_t, float>> logit_bias;
  std::span<const int32_t> forbidden;
  std::span<const int32_t> prompt;  // in device memory; read only when a penalty is set
  std::span<const int32_t> generated;
  uint64_t seed = 0;
  uint64_t choice = 0;
  uint64_t position = 0;
  int32_t logprobs = -1;        // -1: none wanted; n >= 0: of the token, and the n likeliest
  int32_t* drawn_at = nullptr;  // in device memory: where the id goes, too, if given
};

struct TokenDraw {
  int32_t id = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  // (id, log-probability), likeliest first
};

// A counter-based random word: equal keys give equal words on every machine.
uint64_t RandomWord(uint64_t seed, uint64_t choice, uint64_t position);

inline constexpr float kSampleFloor = -40.0f;                    // y at or below it weighs nothing
inline constexpr uint64_t kSampleWeightMax = uint64_t{1} << 40;  // of the likeliest id, y = 0
// More ids than this could overflow the sum of their weights.
inline constexpr int32_t kSampleVocabMax = 1 << 23;

// 2^40 * 2^y as an integer, for y <= 0: only fma and integer steps, so the same on every machine.
inline uint64_t SampleWeight(float y) {
  if (!(y > kSampleFloor)) return 0;
  const float shifted = y + 12582912.0f;        // 1.5 * 2^23: rounds y to an integer, ties to even
  const float f = y - (shifted - 12582912.0f);  // in [-1/2, 1/2], exact
  const int32_t n = std::bit_cast<int32_t>(shifted) - 0x4b400000;  // in [-40, 0]
  float p = 1.535336188319500e-4f;                                 // 2^f, Cephes exp2f
  p = std::fma(p, f, 1.339887440266574e-3f);
  p = std::fma(p, f, 9.618437357674640e-3f);
  p = std::fma(p, f, 5.550332471162809e-2f);
  p = std::fma(p, f, 2.402264791363012e-1f);
  p = std::fma(p, f, 6.931472028550421e-1f);
  p = std::fma(p, f, 1.0f);
  return static_cast<uint64_t>(p * 16777216.0f) << 16 >> -n;
}

}  // namespace catserve

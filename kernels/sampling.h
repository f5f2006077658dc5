// The exact rule by which a token is drawn: shared by every backend, so that equal logits give equal
// tokens on all of them.
//
//  1. z = logits + bias; repetition penalty (seen in prompt or generated: z > 0 ? z / p : z * p);
//     z -= presence (if generated) + frequency * count among the generated; forbidden ids: -inf.
//  2. temperature 0: the argmax of z, lowest id on ties.
//  3. else y = z / temperature; weights w = exp(y - max y); top-k keeps the k largest (ties with the
//     k-th: lower ids first), then top-p the shortest likeliest prefix whose mass reaches p of what
//     is left (at least one), then min-p drops those below min_p of the largest.
//  4. The kept weights, as 64-bit integers scaled from the largest, are laid end to end in order of
//     id, and u = RandomWord(seed, choice, position) scaled to their sum picks one.
// Log-probabilities are of the logits as the model gave them, before 1.
#pragma once

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
  std::span<const int32_t> prompt;     // read only when a penalty is set
  std::span<const int32_t> generated;
  uint64_t seed = 0;
  uint64_t choice = 0;
  uint64_t position = 0;
  int32_t logprobs = -1;               // -1: none wanted; n >= 0: of the token, and the n likeliest
};

struct TokenDraw {
  int32_t id = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  // (id, log-probability), likeliest first
};

// A counter-based random word: equal keys give equal words on every machine.
uint64_t RandomWord(uint64_t seed, uint64_t choice, uint64_t position);

}  // namespace catserve

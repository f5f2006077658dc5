// Draws and scores tokens by the rule of kernels/sampling.h, one row of logits at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/ops.h"
#include "kernels/sampling.h"

namespace catserve::cpu {

// Owns its scratch memory, which grows to the largest vocabulary seen. One thread at a time.
class Sampler {
 public:
  explicit Sampler(const Ops& ops) : ops_(ops) {}

  // logits: [vocab_size], not changed. REQUIRES: 0 < vocab_size <= kSampleVocabMax.
  TokenDraw Draw(const float* logits, int32_t vocab_size, const SampleSpec& spec);

  // The log-probability of `target`, which becomes the id, and the top_n likeliest.
  TokenDraw Score(const float* logits, int32_t vocab_size, int32_t target, int32_t top_n);

 private:
  struct Normalizer {
    double max = 0;
    double log_sum = 0;
  };
  struct Ranked {
    float z = 0;
    int32_t id = 0;
  };
  enum class Measure { kCount, kMass };

  void Load(const float* logits, int32_t vocab_size);
  Normalizer Normalize() const;
  float Logprob(float logit, const Normalizer& normalizer) const;
  void FillTop(TokenDraw& draw, int32_t count, const Normalizer& normalizer);

  void Adjust(const SampleSpec& spec);
  void Penalize(const SampleSpec& spec);
  int32_t DrawAdjusted(const SampleSpec& spec);
  // Drops all but the shortest prefix of the ranked ids that measures at least `need`.
  void KeepPrefix(Measure measure, uint64_t need);
  uint64_t Mass() const;
  bool Contains(int32_t id) const { return id >= 0 && id < vocab_size_; }

  const Ops& ops_;
  int32_t vocab_size_ = 0;
  std::vector<float> z_;
  std::vector<uint64_t> weights_;  // 0 once dropped
  std::vector<uint16_t> bins_;     // kNoBin once dropped
  std::vector<int32_t> counts_;    // of generated ids; all zero between calls
  std::vector<int32_t> seen_;      // ids whose count or mark is set
  std::vector<uint8_t> marks_;     // of seen ids; all zero between calls
  std::vector<Ranked> ranked_;
};

}  // namespace catserve::cpu

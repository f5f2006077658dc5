#include "kernels/cpu/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace catserve::cpu {
namespace {

constexpr float kFloatMax = std::numeric_limits<float>::max();

uint64_t MulHigh(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}

bool HasPenalty(const SampleSpec& spec) {
  return spec.repetition_penalty != 1.0f || spec.presence_penalty != 0.0f ||
         spec.frequency_penalty != 0.0f;
}

}  // namespace

TokenDraw Sampler::Draw(const float* logits, int32_t vocab_size, const SampleSpec& spec) {
  Load(logits, vocab_size);
  TokenDraw draw;
  Normalizer normalizer;
  if (spec.logprobs >= 0) {
    normalizer = Normalize();
    FillTop(draw, spec.logprobs, normalizer);
  }
  Adjust(spec);
  draw.id = DrawAdjusted(spec);
  if (spec.logprobs >= 0) {
    float logit = 0;
    ops_.clean_logits(&logit, logits + draw.id, 1);
    draw.logprob = Logprob(logit, normalizer);
  }
  return draw;
}

TokenDraw Sampler::Score(const float* logits, int32_t vocab_size, int32_t target, int32_t top_n) {
  Load(logits, vocab_size);
  const Normalizer normalizer = Normalize();
  TokenDraw draw{.id = target, .logprob = Logprob(z_[target], normalizer)};
  FillTop(draw, top_n, normalizer);
  return draw;
}

void Sampler::Load(const float* logits, int32_t vocab_size) {
  vocab_size_ = vocab_size;
  if (static_cast<int64_t>(z_.size()) < vocab_size) {
    z_.resize(vocab_size);
    weights_.resize(vocab_size);
    bins_.resize(vocab_size);
    counts_.resize(vocab_size);
    marks_.resize(vocab_size);
  }
  ops_.clean_logits(z_.data(), logits, vocab_size);
}

Sampler::Normalizer Sampler::Normalize() const {
  const float max = z_[ops_.arg_max(z_.data(), vocab_size_)];
  return {.max = max, .log_sum = std::log(ops_.sum_exp(z_.data(), vocab_size_, max))};
}

float Sampler::Logprob(float logit, const Normalizer& normalizer) const {
  return static_cast<float>(static_cast<double>(logit) - normalizer.max - normalizer.log_sum);
}

void Sampler::FillTop(TokenDraw& draw, int32_t count, const Normalizer& normalizer) {
  count = std::clamp(count, 0, vocab_size_);
  if (count == 0) return;
  // A heap whose top is the worst of the best so far; ids ascend, so an equal logit ranks below.
  const auto likelier = [](const Ranked& a, const Ranked& b) {
    return a.z != b.z ? a.z > b.z : a.id < b.id;
  };
  ranked_.clear();
  for (int32_t id = 0; id < vocab_size_; ++id) {
    const bool full = static_cast<int32_t>(ranked_.size()) == count;
    if (full && !(z_[id] > ranked_.front().z)) continue;
    if (full) {
      std::pop_heap(ranked_.begin(), ranked_.end(), likelier);
      ranked_.pop_back();
    }
    ranked_.push_back({z_[id], id});
    std::push_heap(ranked_.begin(), ranked_.end(), likelier);
  }
  std::sort_heap(ranked_.begin(), ranked_.end(), likelier);
  draw.top.reserve(count);
  for (const Ranked& r : ranked_) draw.top.emplace_back(r.id, Logprob(r.z, normalizer));
}

void Sampler::Adjust(const SampleSpec& spec) {
  for (const auto& [id, bias] : spec.logit_bias) {
    if (Contains(id)) z_[id] += bias;
  }
  if (HasPenalty(spec)) Penalize(spec);
  for (const auto& [id, bias] : spec.logit_bias) {
    if (Contains(id)) ops_.clean_logits(&z_[id], &z_[id], 1);
  }
  if (spec.forbidden.empty()) return;
  // Marks first: should every id be forbidden, then nothing is.
  int32_t forbidden = 0;
  for (const int32_t id : spec.forbidden) {
    if (Contains(id) && marks_[id] == 0) forbidden += marks_[id] = 1;
  }
  for (const int32_t id : spec.forbidden) {
    if (!Contains(id)) continue;
    marks_[id] = 0;
    if (forbidden < vocab_size_) z_[id] = -std::numeric_limits<float>::infinity();
  }
}

void Sampler::Penalize(const SampleSpec& spec) {
  seen_.clear();
  const auto see = [&](int32_t id, int32_t count) {
    if (!Contains(id)) return;
    if (marks_[id] == 0) seen_.push_back(id);
    marks_[id] = 1;
    counts_[id] += count;
  };
  for (const int32_t id : spec.prompt) see(id, 0);
  for (const int32_t id : spec.generated) see(id, 1);
  for (const int32_t id : seen_) {
    const float repetition = spec.repetition_penalty;
    float z = z_[id];
    z = z > 0 ? z / repetition : z * repetition;
    if (counts_[id] > 0) {
      const float repeated = spec.frequency_penalty * static_cast<float>(counts_[id]);
      z -= spec.presence_penalty + repeated;
    }
    ops_.clean_logits(&z_[id], &z, 1);
    marks_[id] = 0;
    counts_[id] = 0;
  }
}

int32_t Sampler::DrawAdjusted(const SampleSpec& spec) {
  const int64_t best = ops_.arg_max(z_.data(), vocab_size_);
  if (spec.temperature == 0.0f) return static_cast<int32_t>(best);
  const float scale = std::min(1.0f / spec.temperature * 1.44269504f, kFloatMax);
  ops_.weigh(weights_.data(), bins_.data(), z_.data(), vocab_size_,
             {.max = z_[best], .scale = scale});
  if (spec.top_k > 0 && spec.top_k < vocab_size_) {
    KeepPrefix(Measure::kCount, static_cast<uint64_t>(spec.top_k));
  }
  if (!(spec.top_p >= 1.0f)) {
    const double mass = static_cast<double>(Mass()) * static_cast<double>(spec.top_p);
    KeepPrefix(Measure::kMass, mass >= 1.0 ? static_cast<uint64_t>(mass) : 1);
  }
  const float min_p = std::min(spec.min_p, 1.0f);
  const double least = static_cast<double>(kSampleWeightMax) * static_cast<double>(min_p);
  if (least >= 1.0) {
    for (int32_t id = 0; id < vocab_size_; ++id) {
      if (weights_[id] < static_cast<uint64_t>(least)) weights_[id] = 0;
    }
  }
  const uint64_t word = RandomWord(spec.seed, spec.choice, spec.position);
  const uint64_t target = MulHigh(word, Mass());
  uint64_t cumulative = 0;
  for (int32_t id = 0; id < vocab_size_; ++id) {
    cumulative += weights_[id];
    if (cumulative > target) return id;
  }
  return static_cast<int32_t>(best);  // not reached: the likeliest id always has a weight
}

void Sampler::KeepPrefix(Measure measure, uint64_t need) {
  const auto amount = [&](int32_t id) {
    return measure == Measure::kCount ? uint64_t{1} : weights_[id];
  };
  std::array<uint64_t, kWeightBins> totals{};
  for (int32_t id = 0; id < vocab_size_; ++id) {
    if (bins_[id] != kNoBin) totals[bins_[id]] += amount(id);
  }
  int cut = 0;
  while (cut + 1 < kWeightBins && totals[cut] < need) need -= totals[cut++];
  const auto drop = [&](int32_t id) {
    weights_[id] = 0;
    bins_[id] = kNoBin;
  };
  // The prefix ends within bin `cut`: rank that one alone.
  ranked_.clear();
  for (int32_t id = 0; id < vocab_size_; ++id) {
    if (bins_[id] == cut) ranked_.push_back({z_[id], id});
    if (bins_[id] > cut) drop(id);
  }
  std::sort(ranked_.begin(), ranked_.end(),
            [](const Ranked& a, const Ranked& b) { return a.z != b.z ? a.z > b.z : a.id < b.id; });
  uint64_t kept = 0;
  for (const Ranked& r : ranked_) {
    if (kept < need) {
      kept += amount(r.id);
    } else {
      drop(r.id);
    }
  }
}

uint64_t Sampler::Mass() const {
  uint64_t mass = 0;
  for (int32_t id = 0; id < vocab_size_; ++id) mass += weights_[id];
  return mass;
}

}  // namespace catserve::cpu

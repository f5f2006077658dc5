// The rule of kernels/sampling.h written down a second time, the slow way: everything is sorted.
#pragma once

#include <algorithm>
#include <limits>
#include <map>
#include <vector>

#include "kernels/sampling.h"

namespace catserve::testing {

inline float Cleaned(float x) {
  constexpr float kMax = std::numeric_limits<float>::max();
  if (std::isnan(x)) return -kMax;
  return std::clamp(x, -kMax, kMax);
}

inline std::vector<float> AdjustedLogits(const std::vector<float>& logits, const SampleSpec& spec) {
  std::vector<float> z(logits.size());
  std::transform(logits.begin(), logits.end(), z.begin(), Cleaned);
  const auto inside = [&](int32_t id) { return id >= 0 && id < static_cast<int32_t>(z.size()); };
  for (const auto& [id, bias] : spec.logit_bias) {
    if (inside(id)) z[id] += bias;
  }
  std::map<int32_t, int32_t> counts;
  for (const int32_t id : spec.prompt) counts[id] += 0;
  for (const int32_t id : spec.generated) counts[id] += 1;
  for (const auto& [id, count] : counts) {
    if (!inside(id)) continue;
    z[id] = z[id] > 0 ? z[id] / spec.repetition_penalty : z[id] * spec.repetition_penalty;
    const float repeated = spec.frequency_penalty * static_cast<float>(count);
    if (count > 0) z[id] -= spec.presence_penalty + repeated;
  }
  std::transform(z.begin(), z.end(), z.begin(), Cleaned);
  const std::vector<float> allowed = z;
  for (const int32_t id : spec.forbidden) {
    if (inside(id)) z[id] = -std::numeric_limits<float>::infinity();
  }
  return std::count(z.begin(), z.end(), -std::numeric_limits<float>::infinity()) ==
                 static_cast<int64_t>(z.size())
             ? allowed
             : z;
}

// The ids that may be drawn with their weights, likeliest first.
inline std::vector<std::pair<int32_t, uint64_t>> KeptIds(const std::vector<float>& z,
                                                         const SampleSpec& spec) {
  std::vector<int32_t> order(z.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return z[a] > z[b]; });
  const float scale =
      std::min(1.0f / spec.temperature * 1.44269504f, std::numeric_limits<float>::max());
  std::vector<std::pair<int32_t, uint64_t>> kept;
  for (const int32_t id : order) {
    kept.emplace_back(id, SampleWeight((z[id] - z[order[0]]) * scale));
  }
  if (spec.top_k > 0 && spec.top_k < static_cast<int32_t>(kept.size())) kept.resize(spec.top_k);
  uint64_t mass = 0;
  for (const auto& [id, weight] : kept) mass += weight;
  if (spec.top_p < 1.0f) {
    const auto need = static_cast<uint64_t>(static_cast<double>(mass) * double{spec.top_p});
    uint64_t sum = 0;
    size_t count = 0;
    while (count < kept.size() && sum < std::max<uint64_t>(1, need)) sum += kept[count++].second;
    kept.resize(count);
  }
  const auto least = static_cast<uint64_t>(0x1p40 * double{std::min(spec.min_p, 1.0f)});
  std::erase_if(kept, [&](const auto& k) { return k.second < least; });
  return kept;
}

inline int32_t OracleDraw(const std::vector<float>& logits, const SampleSpec& spec) {
  const std::vector<float> z = AdjustedLogits(logits, spec);
  if (spec.temperature == 0) {
    return static_cast<int32_t>(std::max_element(z.begin(), z.end()) - z.begin());
  }
  auto kept = KeptIds(z, spec);
  std::sort(kept.begin(), kept.end());
  uint64_t mass = 0;
  for (const auto& [id, weight] : kept) mass += weight;
  const uint64_t word = RandomWord(spec.seed, spec.choice, spec.position);
  const auto target = static_cast<uint64_t>(static_cast<unsigned __int128>(word) * mass >> 64);
  uint64_t sum = 0;
  for (const auto& [id, weight] : kept) {
    sum += weight;
    if (sum > target) return id;
  }
  return -1;
}

}  // namespace catserve::testing

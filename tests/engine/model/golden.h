// The authors' golden data (tests/data/golden/README.md), and that of the other layout
// (tests/data/fla, made by tools/make_fla_golden.py).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/step.h"
#include "tests/engine/model/checkpoint_writer.h"

namespace catserve::testing {

inline const std::string kGoldenModels[] = {"adaptive-tiny", "fixed-tiny", "dense-tiny"};
inline const std::string kBothLayouts[] = {"adaptive-tiny", "fixed-tiny", "dense-tiny", "fla-tiny"};

std::string GoldenDirectory(const std::string& model);

struct GoldenCase {
  std::string name;
  int32_t chunk_size = 0;  // 0 for a dense model
  std::vector<TokenId> prompt;
  std::vector<float> logits_last;  // [vocab]
  std::vector<float> logits_all;   // [length, vocab], or empty
  std::vector<float> logits_end;   // [vocab], or empty
  std::vector<float> fx;           // [floor(length / chunk_size), dim_fx], or empty
  std::vector<TokenId> greedy;     // 40 tokens, or empty
  std::vector<float> greedy_margins;
};

struct Golden {
  std::vector<GoldenCase> cases;
  HostArrays arrays;  // golden.safetensors

  const GoldenCase& Case(const std::string& name) const;  // throws if there is none
};

// All tensors of an F32 safetensors file; throws on a damaged file.
HostArrays ReadArrays(const std::string& path);

Golden LoadGolden(const std::string& model);  // throws on a damaged file

}  // namespace catserve::testing

// Small models for tests that need a shape only, and requests in one line.
#pragma once

#include <cstdint>
#include <numeric>
#include <vector>

#include "engine/geometry.h"
#include "engine/schedule/request.h"

namespace catserve {

inline ModelGeometry CatShape(int32_t block_size = 128) {
  return {.kind = ModelKind::kCat,
          .chunk_sizes = {1, 2, 4, 8, 16},
          .block_size = block_size,
          .vocab_size = 61,
          .bytes_per_entry = 100};
}

inline ModelGeometry FixedShape() {
  ModelGeometry shape = CatShape();
  shape.kind = ModelKind::kCatFixed;
  shape.chunk_sizes = {8};
  return shape;
}

inline ModelGeometry DenseShape() {
  ModelGeometry shape = CatShape();
  shape.kind = ModelKind::kDense;
  shape.chunk_sizes = {};
  return shape;
}

// `count` tokens of the vocabularies above, different for each `start`.
inline std::vector<TokenId> Words(int32_t count, int32_t start = 0) {
  std::vector<TokenId> words(count);
  for (int32_t i = 0; i < count; ++i) words[i] = (start * 17 + i * 7 + i * i) % 61;
  return words;
}

// chunk_size 0 for a dense model. Greedy, with the log-probability of every token.
inline Request Generate(std::vector<TokenId> prompt, int32_t chunk_size, int32_t max_tokens) {
  Request request;
  request.prompt = std::move(prompt);
  request.budget.chunk_size = chunk_size;
  request.sampling.temperature = 0;
  request.sampling.logprobs = 0;
  request.stop.max_tokens = max_tokens;
  return request;
}

inline Request Score(std::vector<TokenId> text, int32_t chunk_size) {
  Request request = Generate(std::move(text), chunk_size, 0);
  request.task = Task::kScore;
  return request;
}

}  // namespace catserve

#include "engine/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "tests/engine/test_models.h"

namespace catserve {
namespace {

const EngineOptions kOptions{.slots = 4, .queue_requests_max = 2, .kv_pages = 20};

ModelGeometry Shape() {
  ModelGeometry model = CatShape(256);
  model.chunk_sizes = {4, 8, 16, 32};
  return model;
}

std::string Refusal(const ModelGeometry& model, const Request& request) {
  const absl::Status status = ValidateRequest(model, kOptions, request);
  if (status.ok()) return "OK";
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

// What is said about a good request with one thing changed.
std::string With(const std::function<void(Request&)>& change) {
  Request request = Generate(Words(10), 8, 20);
  change(request);
  return Refusal(Shape(), request);
}

TEST(Admission, AGoodRequestIsAccepted) {
  EXPECT_EQ(Refusal(Shape(), Generate(Words(10), 8, 20)), "OK");
  EXPECT_EQ(Refusal(Shape(), Generate(Words(256), 8, 0)), "OK");
  EXPECT_EQ(Refusal(Shape(), Generate(Words(1), 32, 255)), "OK");
  EXPECT_EQ(Refusal(Shape(), Score(Words(256), 4)), "OK");
  EXPECT_EQ(Refusal(DenseShape(), Generate(Words(10), 0, 20)), "OK");
}

TEST(Admission, ThePromptMustBeThereAndFit) {
  EXPECT_EQ(With([](Request& r) { r.prompt = {}; }),
            "prompt is empty; the first token has to be given");
  EXPECT_EQ(With([](Request& r) { r.prompt = Words(300); }),
            "prompt has 300 tokens, more than the context of 256");
  EXPECT_EQ(With([](Request& r) { r.prompt = Words(200), r.stop.max_tokens = 100; }),
            "prompt (200 tokens) plus max_tokens (100) exceeds the context of 256 by 44; lower "
            "max_tokens to 56");
  EXPECT_EQ(With([](Request& r) { r.stop.max_tokens = INT32_MAX; }),
            "prompt (10 tokens) plus max_tokens (2147483647) exceeds the context of 256 by "
            "2147483401; lower max_tokens to 246");
  EXPECT_EQ(With([](Request& r) { r.prompt[3] = 61; }),
            "prompt: token id 61 is not in the vocabulary; allowed: 0 to 60");
  EXPECT_EQ(With([](Request& r) { r.prompt[3] = -1; }),
            "prompt: token id -1 is not in the vocabulary; allowed: 0 to 60");
}

TEST(Admission, AScoreNamesItsText) {
  EXPECT_EQ(Refusal(Shape(), Score({}, 8)), "text is empty; the first token has to be given");
  EXPECT_EQ(Refusal(Shape(), Score({5}, 8)),
            "text has 1 token, which has to be given; scoring needs 2 or more");
  Request request = Score(Words(10), 8);
  request.choices = 2;
  EXPECT_EQ(Refusal(Shape(), request), "n 2 is out of range; allowed: 1 to 1");
}

TEST(Admission, ChunkSizesAreThoseTheModelOffers) {
  EXPECT_EQ(With([](Request& r) { r.budget.chunk_size = 7; }),
            "chunk_size 7 is not offered; this model offers 4, 8, 16, 32");
  EXPECT_EQ(With([](Request& r) { r.budget.chunk_size = 0; }),
            "chunk_size 0 is not offered; this model offers 4, 8, 16, 32");
  EXPECT_EQ(Refusal(DenseShape(), Generate(Words(10), 8, 20)),
            "chunk_size 8: a dense model has no chunk sizes; leave it unset");
  Request automatic = Generate(Words(10), 0, 20);
  automatic.budget.automatic = true;
  EXPECT_EQ(Refusal(DenseShape(), automatic),
            "auto: a dense model has no chunk sizes; leave it unset");
}

TEST(Admission, AutomaticBudgetsNameTheirField) {
  const auto budget = [](Budget b) {
    b.automatic = true;
    return With([b](Request& r) { r.budget = b; });
  };
  EXPECT_EQ(budget({}), "OK");
  EXPECT_EQ(budget({.chunk_size_min = 8, .chunk_size_max = 8}), "OK");
  EXPECT_EQ(budget({.chunk_size_min = 3}),
            "auto.chunk_size_min 3 is not offered; this model offers 4, 8, 16, 32");
  EXPECT_EQ(budget({.chunk_size_max = 64}),
            "auto.chunk_size_max 64 is not offered; this model offers 4, 8, 16, 32");
  EXPECT_EQ(budget({.chunk_size_min = 16, .chunk_size_max = 8}),
            "auto.chunk_size_min 16 is more than auto.chunk_size_max 8");
  EXPECT_EQ(budget({.kv_bytes_max = -1}), "auto.kv_bytes_max -1 is out of range; allowed: > 0");
  EXPECT_EQ(budget({.kv_bytes_max = 1}),
            "auto.kv_bytes_max 1 is less than the 1600 bytes that reading the prompt (10 tokens) "
            "with n 1 takes; raise it, or allow other chunk sizes");
  EXPECT_EQ(budget({.kv_bytes_max = 1600}), "OK");  // the remedy works
}

TEST(Admission, SamplingNumbersHaveRanges) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  using S = SamplingParams;
  const auto refused = [](const std::function<void(S&)>& change) {
    return With([&change](Request& r) { change(r.sampling); });
  };
  EXPECT_EQ(refused([](S& s) { s.temperature = -0.5f; }),
            "temperature -0.5 is out of range; allowed: 0 to 100");
  EXPECT_EQ(refused([](S& s) { s.top_k = -1; }),
            "top_k -1 is out of range; allowed: >= 0, where 0 is off");
  EXPECT_EQ(refused([](S& s) { s.top_p = 0; }),
            "top_p 0 is out of range; allowed: more than 0, up to 1");
  EXPECT_EQ(refused([](S& s) { s.min_p = 1.5f; }), "min_p 1.5 is out of range; allowed: 0 to 1");
  EXPECT_EQ(refused([](S& s) { s.repetition_penalty = 0; }),
            "repetition_penalty 0 is out of range; allowed: more than 0, up to 10");
  EXPECT_EQ(refused([](S& s) { s.presence_penalty = 2.5f; }),
            "presence_penalty 2.5 is out of range; allowed: -2 to 2");
  EXPECT_EQ(refused([](S& s) { s.frequency_penalty = -3; }),
            "frequency_penalty -3 is out of range; allowed: -2 to 2");
  EXPECT_EQ(refused([](S& s) { s.logprobs = 21; }),
            "logprobs 21 is out of range; allowed: -1 to 20");
  EXPECT_EQ(refused([](S& s) {
              s.logit_bias = {{5, 101}};
            }),
            "logit_bias 101 is out of range; allowed: -100 to 100");
  EXPECT_EQ(refused([](S& s) {
              s.logit_bias = {{99, 1}};
            }),
            "logit_bias: token id 99 is not in the vocabulary; allowed: 0 to 60");
  EXPECT_EQ(refused([](S& s) {
              s.logit_bias = {{5, 1}, {5, 2}};
            }),
            "logit_bias names token id 5 twice");
  EXPECT_EQ(refused([](S& s) { s.logit_bias.resize(1025); }),
            "logit_bias has 1025 ids; allowed: at most 1024");
  for (const float bad : {nan, inf, -inf}) {
    EXPECT_NE(refused([bad](S& s) { s.temperature = bad; }), "OK");
    EXPECT_NE(refused([bad](S& s) { s.top_p = bad; }), "OK");
    EXPECT_NE(refused([bad](S& s) { s.min_p = bad; }), "OK");
    EXPECT_NE(refused([bad](S& s) { s.repetition_penalty = bad; }), "OK");
    EXPECT_NE(refused([bad](S& s) { s.presence_penalty = bad; }), "OK");
    EXPECT_NE(refused([bad](S& s) { s.frequency_penalty = bad; }), "OK");
    EXPECT_NE(refused([bad](S& s) { s.logit_bias = {{5, bad}}; }), "OK");
  }
}

TEST(Admission, StoppingHasLimits) {
  EXPECT_EQ(With([](Request& r) { r.stop.max_tokens = -1; }),
            "max_tokens -1 is out of range; allowed: >= 0");
  EXPECT_EQ(With([](Request& r) { r.stop.min_tokens = 21; }),
            "min_tokens 21 is out of range; allowed: 0 to 20");
  EXPECT_EQ(With([](Request& r) {
              r.stop.stop_ids = {3, 61};
            }),
            "stop_token_ids: token id 61 is not in the vocabulary; allowed: 0 to 60");
  EXPECT_EQ(With([](Request& r) { r.stop.stop_ids.resize(129); }),
            "stop_token_ids has 129 ids; allowed: at most 128");
  const auto all = [](Request& r) {
    for (TokenId id = 0; id < 61; ++id) r.stop.stop_ids.push_back(id);
  };
  EXPECT_EQ(With(all), "OK");
  EXPECT_EQ(With([&all](Request& r) { all(r), r.stop.min_tokens = 1; }),
            "stop_token_ids names the whole vocabulary, which leaves nothing to draw for "
            "min_tokens 1");
}

TEST(Admission, ChoicesPriorityAndTimeHaveLimits) {
  EXPECT_EQ(With([](Request& r) { r.choices = 0; }), "n 0 is out of range; allowed: 1 to 4");
  EXPECT_EQ(With([](Request& r) { r.choices = 5; }), "n 5 is out of range; allowed: 1 to 4");
  EXPECT_EQ(With([](Request& r) { r.priority = 101; }),
            "priority 101 is out of range; allowed: -100 to 100");
  EXPECT_EQ(With([](Request& r) { r.time_limit = absl::ZeroDuration(); }),
            "time_limit_ms 0 is out of range; allowed: > 0");
}

TEST(Admission, WhatCouldNeverFitIsRefusedWithTheNumbers) {
  Request request = Generate(Words(200), 4, 56);
  request.choices = 4;  // 53 summaries, a separator and 3 tokens at most: 5 pages each
  EXPECT_EQ(Refusal(Shape(), request), "OK");
  ModelGeometry dense = DenseShape();
  dense.block_size = 512;
  EXPECT_EQ(Refusal(dense, Generate(Words(300), 0, 100)),
            "prompt (300 tokens) plus max_tokens (100) with n 1 needs 25 pages of KV memory, more "
            "than the 20 there are; ask for less");
  EXPECT_EQ(Refusal(dense, Score(Words(500), 0)),
            "text (500 tokens) needs 32 pages of KV memory, more than the 20 there are; ask for "
            "less");
}

TEST(Admission, AFullQueuePushesBack) {
  const absl::Status full = QueueFull(2, 2, absl::Milliseconds(1500));
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(full.message(),
            "the queue is full: 2 requests wait (queue_requests_max 2); try again in 1500 ms");
  EXPECT_EQ(RetryAfter(full), absl::Milliseconds(1500));
  EXPECT_EQ(RetryAfter(absl::ResourceExhaustedError("too many streams")), std::nullopt);
}

TEST(Admission, OptionsMustBeAbleToServe) {
  EXPECT_TRUE(ValidateOptions(Shape(), kOptions).ok());
  const auto refused = [](EngineOptions options) {
    return std::string(ValidateOptions(Shape(), options).message());
  };
  EXPECT_EQ(refused({.slots = 0, .kv_pages = 1}), "slots 0 must be 1 or more");
  EXPECT_EQ(refused({.queue_requests_max = 0, .kv_pages = 1}),
            "queue_requests_max 0 must be 1 or more");
  EXPECT_EQ(refused({.kv_pages = 0}), "kv_pages 0 must be 1 or more");
  EXPECT_EQ(refused({.slots = 4, .kv_pages = 1, .step_rows_max = 73}),
            "step_rows_max 73 must be 74 or more for 4 slots and chunks of 32 tokens");
}

}  // namespace
}  // namespace catserve

// Every way to ask wrongly, its code and the words that name the field.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"
#include "grpcpp/generic/generic_stub.h"
#include "server/wire.h"
#include "tests/server/scripted_server.h"

namespace catserve::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using Change = std::function<void(v1::GenerateRequest&)>;

struct BadGenerate {
  const char* name;
  Change change;
  grpc::StatusCode code;
  const char* field;    // that the message must name
  const char* allowed;  // what it must say is allowed
};

constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

void SetPrompt(v1::GenerateRequest& request, int32_t tokens) {
  auto& ids = *request.mutable_prompt()->mutable_token_ids()->mutable_ids();
  ids.Clear();
  for (int32_t i = 0; i < tokens; ++i) ids.Add(i % 50);
}

const BadGenerate kPrompts[] = {
    {"no prompt", [](auto& r) { r.clear_prompt(); }, kInvalid, "prompt", "prompt.token_ids"},
    {"empty ids", [](auto& r) { SetPrompt(r, 0); }, kInvalid, "prompt", "first token"},
    {"empty text",
     [](auto& r) {
       r.mutable_prompt()->set_text("");
       r.mutable_prompt()->set_add_bos(false);
     },
     kInvalid, "prompt", "first token"},
    {"unknown id", [](auto& r) { r.mutable_prompt()->mutable_token_ids()->add_ids(99999); },
     kInvalid, "prompt", "allowed: 0 to"},
    {"negative id", [](auto& r) { r.mutable_prompt()->mutable_token_ids()->add_ids(-1); }, kInvalid,
     "prompt", "allowed: 0 to"},
    {"too long", [](auto& r) { SetPrompt(r, 257); }, kInvalid, "prompt", "context of 256"},
    {"no room",
     [](auto& r) {
       SetPrompt(r, 250);
       r.mutable_stopping()->set_max_tokens(7);
     },
     kInvalid, "stopping.max_tokens", "lower stopping.max_tokens to 6"},
};

const BadGenerate kBudgets[] = {
    {"chunk size not offered", [](auto& r) { r.mutable_budget()->set_chunk_size(5); }, kInvalid,
     "budget.chunk_size 5", "4, 8, 16"},
    {"chunk size zero", [](auto& r) { r.mutable_budget()->set_chunk_size(0); }, kInvalid,
     "budget.chunk_size 0", "4, 8, 16"},
    {"auto minimum zero",
     [](auto& r) { r.mutable_budget()->mutable_auto_()->set_chunk_size_min(0); }, kInvalid,
     "budget.auto.chunk_size_min", "offered"},
    {"auto minimum negative",
     [](auto& r) { r.mutable_budget()->mutable_auto_()->set_chunk_size_min(-5); }, kInvalid,
     "budget.auto.chunk_size_min -5", "4, 8, 16"},
    {"auto minimum not offered",
     [](auto& r) { r.mutable_budget()->mutable_auto_()->set_chunk_size_min(6); }, kInvalid,
     "budget.auto.chunk_size_min", "4, 8, 16"},
    {"auto minimum over maximum",
     [](auto& r) {
       r.mutable_budget()->mutable_auto_()->set_chunk_size_min(16);
       r.mutable_budget()->mutable_auto_()->set_chunk_size_max(4);
     },
     kInvalid, "budget.auto.chunk_size_min", "chunk_size_max"},
    {"auto no bytes", [](auto& r) { r.mutable_budget()->mutable_auto_()->set_kv_bytes_max(0); },
     kInvalid, "budget.auto.kv_bytes_max", "> 0"},
    {"auto too few bytes",
     [](auto& r) { r.mutable_budget()->mutable_auto_()->set_kv_bytes_max(1); }, kInvalid,
     "budget.auto.kv_bytes_max", "raise it"},
    {"quality loss NaN",
     [](auto& r) { r.mutable_budget()->mutable_auto_()->set_quality_loss_max(kNan); }, kInvalid,
     "budget.auto.quality_loss_max nan", "0 to 1"},
    {"quality loss negative",
     [](auto& r) { r.mutable_budget()->mutable_auto_()->set_quality_loss_max(-0.01); }, kInvalid,
     "budget.auto.quality_loss_max -0.01", "0 to 1"},
    {"quality loss over one",
     [](auto& r) { r.mutable_budget()->mutable_auto_()->set_quality_loss_max(1.01); }, kInvalid,
     "budget.auto.quality_loss_max 1.01", "0 to 1"},
    {"quality task unknown",
     [](auto& r) { r.mutable_budget()->mutable_auto_()->set_quality_task("recall\n"); }, kInvalid,
     "budget.auto.quality_task is not", "allowed: text"},
    {"quality task empty",
     [](auto& r) { r.mutable_budget()->mutable_auto_()->set_quality_task(""); }, kInvalid,
     "budget.auto.quality_task is not", "allowed: text"},
    {"quality out of the range",  // chunk size 8 alone was measured
     [](auto& r) {
       r.mutable_budget()->mutable_auto_()->set_chunk_size_min(16);
       r.mutable_budget()->mutable_auto_()->set_quality_loss_max(0.5);
     },
     kInvalid, "budget.auto.chunk_size_min 16 to budget.auto.chunk_size_max 16",
     "the chunk sizes 8 that budget.auto.quality_loss_max"},
};

const BadGenerate kSamplings[] = {
    {"temperature NaN", [](auto& r) { r.mutable_sampling()->set_temperature(kNan); }, kInvalid,
     "sampling.temperature", "0 to 100"},
    {"temperature negative", [](auto& r) { r.mutable_sampling()->set_temperature(-1); }, kInvalid,
     "sampling.temperature", "0 to 100"},
    {"temperature infinite", [](auto& r) { r.mutable_sampling()->set_temperature(INFINITY); },
     kInvalid, "sampling.temperature", "0 to 100"},
    {"top_k negative", [](auto& r) { r.mutable_sampling()->set_top_k(-1); }, kInvalid,
     "sampling.top_k", ">= 0"},
    {"top_p negative", [](auto& r) { r.mutable_sampling()->set_top_p(-0.5f); }, kInvalid,
     "sampling.top_p", "up to 1"},
    {"top_p zero", [](auto& r) { r.mutable_sampling()->set_top_p(0); }, kInvalid, "sampling.top_p",
     "more than 0"},
    {"min_p over one", [](auto& r) { r.mutable_sampling()->set_min_p(1.5f); }, kInvalid,
     "sampling.min_p", "0 to 1"},
    {"repetition penalty zero", [](auto& r) { r.mutable_sampling()->set_repetition_penalty(0); },
     kInvalid, "sampling.repetition_penalty", "up to 10"},
    {"presence penalty", [](auto& r) { r.mutable_sampling()->set_presence_penalty(3); }, kInvalid,
     "sampling.presence_penalty", "-2 to 2"},
    {"frequency penalty NaN", [](auto& r) { r.mutable_sampling()->set_frequency_penalty(kNan); },
     kInvalid, "sampling.frequency_penalty", "-2 to 2"},
    {"bias of unknown id",
     [](auto& r) { r.mutable_sampling()->add_logit_bias()->set_token_id(99999); }, kInvalid,
     "sampling.logit_bias", "allowed: 0 to"},
    {"bias too large", [](auto& r) { r.mutable_sampling()->add_logit_bias()->set_bias(101); },
     kInvalid, "sampling.logit_bias", "-100 to 100"},
    {"bias twice",
     [](auto& r) {
       r.mutable_sampling()->add_logit_bias()->set_token_id(3);
       r.mutable_sampling()->add_logit_bias()->set_token_id(3);
     },
     kInvalid, "sampling.logit_bias", "twice"},
    {"too many biases",
     [](auto& r) {
       for (int i = 0; i < 1025; ++i) r.mutable_sampling()->add_logit_bias()->set_token_id(i % 800);
     },
     kInvalid, "sampling.logit_bias", "at most 1024"},
    {"n zero", [](auto& r) { r.mutable_sampling()->set_n(0); }, kInvalid, "sampling.n 0", "1 to"},
    {"n enormous", [](auto& r) { r.mutable_sampling()->set_n(2000000000); }, kInvalid,
     "sampling.n 2000000000", "1 to"},
};

const BadGenerate kStops[] = {
    {"10,000 stop strings",
     [](auto& r) {
       for (int i = 0; i < 10000; ++i) r.mutable_stopping()->add_stop("x");
     },
     kInvalid, "stopping.stop has 10000", "at most 16"},
    {"empty stop string", [](auto& r) { r.mutable_stopping()->add_stop(""); }, kInvalid,
     "stopping.stop", "1 to 256"},
    {"long stop string", [](auto& r) { r.mutable_stopping()->add_stop(std::string(257, 'x')); },
     kInvalid, "stopping.stop", "1 to 256"},
    {"too many stop ids",
     [](auto& r) {
       for (int i = 0; i < 65; ++i) r.mutable_stopping()->add_stop_token_ids(i);
     },
     kInvalid, "stopping.stop_token_ids", "at most 64"},
    {"unknown stop id", [](auto& r) { r.mutable_stopping()->add_stop_token_ids(-5); }, kInvalid,
     "stopping.stop_token_ids", "allowed: 0 to"},
    {"max_tokens negative", [](auto& r) { r.mutable_stopping()->set_max_tokens(-1); }, kInvalid,
     "stopping.max_tokens", ">= 0"},
    {"min_tokens negative", [](auto& r) { r.mutable_stopping()->set_min_tokens(-1); }, kInvalid,
     "stopping.min_tokens", "0 to"},
    {"min_tokens over max_tokens", [](auto& r) { r.mutable_stopping()->set_min_tokens(9); },
     kInvalid, "stopping.min_tokens", "0 to 4"},
};

const BadGenerate kOthers[] = {
    {"bad id characters", [](auto& r) { r.set_request_id("a b"); }, kInvalid, "request_id",
     "[A-Za-z0-9._:-]"},
    {"empty id", [](auto& r) { r.set_request_id(""); }, kInvalid, "request_id", "1 to 128"},
    {"long id", [](auto& r) { r.set_request_id(std::string(129, 'a')); }, kInvalid, "request_id",
     "1 to 128"},
    {"logprobs too many", [](auto& r) { r.set_logprobs(21); }, kInvalid, "logprobs", "-1 to 20"},
    {"logprobs below -1", [](auto& r) { r.set_logprobs(-2); }, kInvalid, "logprobs", "-1 to 20"},
    {"priority", [](auto& r) { r.set_priority(101); }, kInvalid, "priority", "-100 to 100"},
    {"long salt", [](auto& r) { r.set_cache_salt(std::string(129, 's')); }, kInvalid, "cache_salt",
     "at most 128"},
    {"no time", [](auto& r) { r.set_time_limit_ms(0); }, kInvalid, "time_limit_ms", "> 0"},
    {"negative time", [](auto& r) { r.set_time_limit_ms(-5); }, kInvalid, "time_limit_ms", "> 0"},
};

template <typename Table>
void ExpectAllRefused(ScriptedServer& house, const Table& table) {
  for (const BadGenerate& bad : table) {
    SCOPED_TRACE(bad.name);
    v1::GenerateRequest request = GreedyRequest({1, 2, 3}, 0, 4);
    bad.change(request);
    const Generated got = Generate(house.stubs(), request);
    EXPECT_EQ(got.status.error_code(), bad.code);
    EXPECT_THAT(got.status.error_message(), AllOf(HasSubstr(bad.field), HasSubstr(bad.allowed)));
    EXPECT_TRUE(got.events.empty());
  }
  EXPECT_TRUE(Generate(house.stubs(), GreedyRequest({1, 2, 3}, 0, 4)).status.ok());
}

TEST(BadRequest, Prompts) {
  ScriptedServer house;
  ExpectAllRefused(house, kPrompts);
}
TEST(BadRequest, Budgets) {
  ScriptedServer house;
  ExpectAllRefused(house, kBudgets);
}
TEST(BadRequest, Sampling) {
  ScriptedServer house;
  ExpectAllRefused(house, kSamplings);
}
TEST(BadRequest, Stopping) {
  ScriptedServer house;
  ExpectAllRefused(house, kStops);
}
TEST(BadRequest, TheRest) {
  ScriptedServer house;
  ExpectAllRefused(house, kOthers);
}

// protobuf's C++ classes do not write invalid UTF-8, so the bytes are made by hand.
grpc::Status SendBytes(Stubs& stubs, const std::string& method, const std::string& bytes) {
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub(stubs.channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const grpc::Slice slice(bytes);
  const auto call =
      stub.PrepareUnaryCall(&context, absl::StrCat("/catserve.v1.Generation/", method),
                            grpc::ByteBuffer(&slice, 1), &queue);
  call->StartCall();
  grpc::ByteBuffer response;
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  return status;
}

std::string Field(int number, const std::string& content) {
  return absl::StrCat(std::string(1, static_cast<char>(number << 3 | 2)),
                      std::string(1, static_cast<char>(content.size())), content);
}

TEST(BadRequest, InvalidUtf8NamesTheFieldAndTheByte) {
  ScriptedServer house;
  const std::string good_prompt = Field(2, Field(1, "hello"));
  const struct {
    const char* method;
    std::string bytes;
    const char* says;
  } cases[] = {
      {"Generate", Field(2, Field(1, "he\xFFllo")), "prompt.text: not valid UTF-8 at byte 2"},
      {"Generate", Field(1, "\xC3"), "request_id: not valid UTF-8 at byte 0"},
      {"Generate", absl::StrCat(good_prompt, Field(5, Field(3, "a\x80"))),
       "stopping.stop: not valid UTF-8"},
      {"Score", Field(2, Field(1, "\xED\xA0\x80")), "text.text: not valid UTF-8 at byte 0"},
      {"Tokenize", Field(1, "ab\xF0\x9F"), "text: not valid UTF-8 at byte 2"},
      {"Abort", Field(1, "\xFF"), "request_id: not valid UTF-8"},
      {"Generate", Field(2, Field(1, "hello")).substr(0, 5), "prompt: damaged or cut off"},
      {"Detokenize", std::string("\x0A\x05\x01", 3), "token_ids: damaged or cut off"},
  };
  for (const auto& bad : cases) {
    SCOPED_TRACE(bad.says);
    const grpc::Status status = SendBytes(house.stubs(), bad.method, bad.bytes);
    EXPECT_EQ(status.error_code(), kInvalid);
    EXPECT_THAT(status.error_message(), HasSubstr(bad.says));
  }
}

TEST(BadRequest, AMessageOverTheLimitIsRefusedByTheTransport) {
  ScriptedServer house(ScriptedServer::Options{.request_bytes_max = 4096});
  v1::GenerateRequest request;
  request.mutable_prompt()->set_text(std::string(5000, 'x'));
  const grpc::Status status = Generate(house.stubs(), request).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("4096"));
  EXPECT_TRUE(Generate(house.stubs(), GreedyRequest({1}, 4, 2)).status.ok());
}

TEST(BadRequest, ATextThatCannotFitIsRefusedBeforeItIsTokenised) {
  ScriptedServer house;
  v1::GenerateRequest request;
  request.mutable_prompt()->set_text(std::string(1'000'000, 'x'));
  const grpc::Status status = Generate(house.stubs(), request).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("prompt has 1000000 bytes, at least"));
}

TEST(BadRequest, TextWithoutATokenizerNamesTheFiles) {
  ScriptedServer house(ScriptedServer::Options{.tokenizer = false});
  v1::GenerateRequest request;
  request.mutable_prompt()->set_text("hello");
  const grpc::Status status = Generate(house.stubs(), request).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("tokenizer.json"));
  v1::GenerateRequest stops = GreedyRequest({1}, 4, 2);
  stops.mutable_stopping()->add_stop("x");
  EXPECT_EQ(Generate(house.stubs(), stops).status.error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  const Generated ids = Generate(house.stubs(), GreedyRequest({1}, 4, 2));
  EXPECT_TRUE(ids.status.ok());
  EXPECT_EQ(ids.ids().size(), 2);
  EXPECT_EQ(ids.text(), "");
}

TEST(BadRequest, Score) {
  ScriptedServer house;
  v1::ScoreRequest good;
  good.mutable_text()->mutable_token_ids()->mutable_ids()->Add(1);
  good.mutable_text()->mutable_token_ids()->mutable_ids()->Add(2);
  good.set_chunk_size(4);
  const struct {
    std::function<void(v1::ScoreRequest&)> change;
    const char* says;
  } cases[] = {
      {[](auto& r) { r.clear_chunk_size(); }, "chunk_size is missing; this model offers 4, 8, 16"},
      {[](auto& r) { r.set_chunk_size(3); }, "chunk_size 3"},
      {[](auto& r) { r.clear_text(); }, "text is missing"},
      {[](auto& r) { r.mutable_text()->set_text(""); }, "text"},
      {[](auto& r) { r.mutable_text()->mutable_token_ids()->mutable_ids()->RemoveLast(); },
       "2 or more"},
      {[](auto& r) { r.set_top_logprobs(-1); }, "top_logprobs"},
      {[](auto& r) { r.set_top_logprobs(21); }, "top_logprobs 21"},
      {[](auto& r) { r.set_request_id("#"); }, "request_id"},
  };
  EXPECT_TRUE(Score(house.stubs(), good).status.ok());
  for (const auto& bad : cases) {
    SCOPED_TRACE(bad.says);
    v1::ScoreRequest request = good;
    bad.change(request);
    const grpc::Status status = Score(house.stubs(), request).status;
    EXPECT_EQ(status.error_code(), kInvalid);
    EXPECT_THAT(status.error_message(), HasSubstr(bad.says));
  }
}

TEST(BadRequest, ADenseModelHasNoDial) {
  ScriptedServer house(ScriptedServer::Options{.dense = true});
  EXPECT_TRUE(Generate(house.stubs(), GreedyRequest({1, 2}, 0, 3)).status.ok());
  const grpc::Status status = Generate(house.stubs(), GreedyRequest({1, 2}, 4, 3)).status;
  EXPECT_EQ(status.error_code(), kInvalid);
  EXPECT_THAT(status.error_message(), HasSubstr("dense"));
  v1::GenerateRequest automatic = GreedyRequest({1, 2}, 0, 3);
  automatic.mutable_budget()->mutable_auto_();
  EXPECT_EQ(Generate(house.stubs(), automatic).status.error_code(), kInvalid);
  automatic.mutable_budget()->mutable_auto_()->set_quality_loss_max(0.1);
  const grpc::Status bounded = Generate(house.stubs(), automatic).status;
  EXPECT_EQ(bounded.error_code(), kInvalid);
  EXPECT_THAT(bounded.error_message(), HasSubstr("budget.auto: a dense model has no chunk sizes"));
}

TEST(BadRequest, DetokenizeOfUnknownIds) {
  ScriptedServer house;
  v1::DetokenizeRequest request;
  request.add_token_ids(99999);
  grpc::ClientContext context;
  v1::DetokenizeResponse response;
  const grpc::Status status = house.stubs().generation->Detokenize(&context, request, &response);
  EXPECT_EQ(status.error_code(), kInvalid);
  EXPECT_THAT(status.error_message(), HasSubstr("token_ids: token id 99999"));
}

}  // namespace
}  // namespace catserve::testing

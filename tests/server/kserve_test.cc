// Clients of the KServe v2 protocol at our server: what they ask, in their words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "inference/kserve.grpc.pb.h"
#include "server/kserve/infer_request.h"
#include "server/kserve/stream_infer.h"
#include "tests/server/scripted_server.h"

namespace catserve::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

constexpr char kModel[] = "scripted";

std::string Raw(const std::vector<int32_t>& ids) {
  return std::string(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t));
}

std::string RawText(const std::string& text) {
  const auto length = static_cast<uint32_t>(text.size());
  std::string raw(sizeof(length), '\0');
  std::memcpy(raw.data(), &length, sizeof(length));
  return raw + text;
}

// A request of one tensor, raw as Triton's clients send it.
inference::ModelInferRequest Ask(const char* input, const char* type, int64_t elements,
                                 const std::string& raw) {
  inference::ModelInferRequest request;
  request.set_model_name(kModel);
  auto& tensor = *request.add_inputs();
  tensor.set_name(input);
  tensor.set_datatype(type);
  tensor.add_shape(elements);
  request.add_raw_input_contents(raw);
  return request;
}

inference::ModelInferRequest AskIds(const std::vector<int32_t>& ids, int32_t max_tokens) {
  auto request = Ask(kserve::kIdsInput, "INT32", static_cast<int64_t>(ids.size()), Raw(ids));
  (*request.mutable_parameters())["max_tokens"].set_int64_param(max_tokens);
  (*request.mutable_parameters())["chunk_size"].set_int64_param(8);
  return request;
}

std::string Text(const inference::ModelInferResponse& response) {
  for (int i = 0; i < response.outputs_size(); ++i) {
    if (response.outputs(i).name() == kserve::kTextOutput) {
      return response.raw_output_contents(i).substr(sizeof(uint32_t));
    }
  }
  return "no text";
}

// -- Reading requests -----------------------------------------------------------------------------

TEST(ReadInfer, ParametersOfTheProtocolBecomeFieldsOfOurContract) {
  auto message = Ask(kserve::kTextInput, "BYTES", 1, RawText("once"));
  auto& parameters = *message.mutable_parameters();
  parameters["chunk_size_min"].set_int64_param(8);
  parameters["kv_bytes_max"].set_int64_param(int64_t{1} << 40);
  parameters["quality_loss_max"].set_double_param(0.05);
  parameters["quality_task"].set_string_param("recall_16");
  parameters["temperature"].set_double_param(0.5);
  parameters["top_p"].set_int64_param(1);
  parameters["seed"].set_uint64_param(~uint64_t{0});
  parameters["stop"].set_string_param("\n");
  parameters["ignore_eos"].set_bool_param(true);
  parameters["timeout"].set_int64_param(1500);  // microseconds
  parameters["triton_enable_empty_final_response"].set_bool_param(true);
  message.add_outputs()->set_name(kserve::kTextOutput);
  const auto read = kserve::ReadInfer(message);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->text);
  EXPECT_FALSE(read->ids);
  EXPECT_EQ(read->generate.prompt().text(), "once");
  EXPECT_EQ(read->generate.budget().auto_().chunk_size_min(), 8);
  EXPECT_FALSE(read->generate.budget().auto_().has_chunk_size_max());
  EXPECT_EQ(read->generate.budget().auto_().kv_bytes_max(), int64_t{1} << 40);
  EXPECT_EQ(read->generate.budget().auto_().quality_loss_max(), 0.05);
  EXPECT_EQ(read->generate.budget().auto_().quality_task(), "recall_16");
  EXPECT_EQ(read->generate.sampling().temperature(), 0.5F);
  EXPECT_EQ(read->generate.sampling().top_p(), 1.0F);
  EXPECT_EQ(read->generate.sampling().seed(), ~uint64_t{0});
  EXPECT_THAT(read->generate.stopping().stop(), ElementsAre("\n"));
  EXPECT_TRUE(read->generate.stopping().ignore_eos());
  EXPECT_EQ(read->generate.time_limit_ms(), 2);
}

TEST(ReadInfer, IdsComeRawOrAsContentsIn32Or64Bits) {
  inference::ModelInferRequest plain;
  auto& tensor = *plain.add_inputs();
  tensor.set_name(kserve::kIdsInput);
  tensor.set_datatype("INT64");
  tensor.add_shape(1);
  tensor.add_shape(3);
  for (const int64_t id : {5, 6, 7}) tensor.mutable_contents()->add_int64_contents(id);
  for (const auto& message : {plain, Ask(kserve::kIdsInput, "INT32", 3, Raw({5, 6, 7}))}) {
    const auto read = kserve::ReadInfer(message);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_THAT(read->generate.prompt().token_ids().ids(), ElementsAre(5, 6, 7));
  }
}

TEST(ReadInfer, EachMistakeNamesItsTensorOrParameterAndWhatIsAllowed) {
  std::map<std::string, inference::ModelInferRequest> cases;  // by what the error says
  cases["expected 1 input"] = {};
  cases["id has 257 bytes; allowed: at most 256"].set_id(std::string(257, 'x'));
  cases["input text_input: shape [0]"] = Ask(kserve::kTextInput, "BYTES", 0, "");
  cases["input input_ids: shape [-1]"] = Ask(kserve::kIdsInput, "INT32", -1, "");
  cases["one element of type BYTES"] = Ask(kserve::kTextInput, "BYTES", 2, RawText("a"));
  cases["a length of 4 bytes"] = Ask(kserve::kTextInput, "BYTES", 1, "abc");
  cases["so many bytes"] = Ask(kserve::kTextInput, "BYTES", 1, RawText("once") + "more");
  cases["no valid UTF-8 at byte 1"] = Ask(kserve::kTextInput, "BYTES", 1, RawText("a\xff"));
  cases["the shape needs 4"] = Ask(kserve::kIdsInput, "INT32", int64_t{1} << 62, Raw({1}));
  cases["type INT32 or INT64"] = Ask(kserve::kIdsInput, "FP32", 1, Raw({1}));
  cases["input 'x'; allowed: text_input or input_ids"] = Ask("x", "INT32", 1, Raw({1}));
  cases["is no token id"] = Ask(kserve::kIdsInput, "INT64", 1, Raw({0, 1}));  // 2^32
  auto& both = cases["both contents and raw"] = AskIds({1}, 1);
  both.mutable_inputs(0)->mutable_contents()->add_int_contents(1);
  cases["not one for each input"] = AskIds({1}, 1);
  cases["not one for each input"].add_raw_input_contents("");
  auto& budgets = cases["not together with chunk_size"] = AskIds({1}, 1);
  (*budgets.mutable_parameters())["chunk_size_max"].set_int64_param(8);
  auto& bounded = cases["parameter quality_loss_max: belongs to an automatic budget"] =
      AskIds({1}, 1);
  (*bounded.mutable_parameters())["quality_loss_max"].set_double_param(0.05);
  auto& unknown = cases["parameter chunk is not known; allowed: chunk_size,"] = AskIds({1}, 1);
  (*unknown.mutable_parameters())["chunk"].set_int64_param(8);
  auto& wide = cases["parameter top_k: not an integer of 32 bits"] = AskIds({1}, 1);
  (*wide.mutable_parameters())["top_k"].set_int64_param(int64_t{1} << 32);
  auto& text = cases["parameter temperature: not a number"] = AskIds({1}, 1);
  (*text.mutable_parameters())["temperature"].set_string_param("0.5");
  auto& seed = cases["parameter seed: not an integer of 0 or more"] = AskIds({1}, 1);
  (*seed.mutable_parameters())["seed"].set_int64_param(-1);
  auto& timeout = cases["parameter timeout: not a number of microseconds"] = AskIds({1}, 1);
  (*timeout.mutable_parameters())["timeout"].set_bool_param(true);
  cases["output 'logits'; allowed: text_output and output_ids"] = AskIds({1}, 1);
  cases["output 'logits'; allowed: text_output and output_ids"].add_outputs()->set_name("logits");
  for (const auto& [words, message] : cases) {
    const auto read = kserve::ReadInfer(message);
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << words;
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(words));
  }
}

// -- At the server --------------------------------------------------------------------------------

class KServe : public ::testing::Test {
 protected:
  KServe() : KServe(ScriptedServer::Options{.queue_requests_max = 256}) {}
  explicit KServe(ScriptedServer::Options options) : house_(std::move(options)) {
    house_.executor().SetScript(house_.Bytes("hello"));
    stub_ = inference::GRPCInferenceService::NewStub(house_.stubs().channel);
  }

  ScriptedServer house_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub_;
};

TEST_F(KServe, TellsThatItIsReadyAndWhatTheModelTakes) {
  grpc::ClientContext live, ready, config, metadata;
  inference::ServerLiveResponse alive;
  ASSERT_TRUE(stub_->ServerLive(&live, {}, &alive).ok());
  EXPECT_TRUE(alive.live());
  inference::ModelReadyRequest named;
  named.set_name(kModel);
  inference::ModelReadyResponse is_ready;
  ASSERT_TRUE(stub_->ModelReady(&ready, named, &is_ready).ok());
  EXPECT_TRUE(is_ready.ready());
  inference::ModelMetadataRequest about;
  about.set_name(kModel);
  inference::ModelMetadataResponse tensors;
  ASSERT_TRUE(stub_->ModelMetadata(&metadata, about, &tensors).ok());
  ASSERT_THAT(tensors.inputs(), SizeIs(2));
  EXPECT_EQ(tensors.inputs(0).name(), "text_input");
  EXPECT_EQ(tensors.outputs(1).datatype(), "INT32");
  inference::ModelConfigRequest configured;
  configured.set_name(kModel);
  inference::ModelConfigResponse answer;
  ASSERT_TRUE(stub_->ModelConfig(&config, configured, &answer).ok());
  EXPECT_TRUE(answer.config().model_transaction_policy().decoupled());
  EXPECT_EQ(answer.config().parameters().at("chunk_sizes").string_value(), "4,8,16");
}

TEST_F(KServe, OneInferenceBringsTheWholeTextItsIdsAndWhatItCost) {
  inference::ModelInferRequest request = AskIds({1, 2, 3}, 12);
  request.set_id("any id at all");
  grpc::ClientContext context;
  inference::ModelInferResponse response;
  const grpc::Status status = stub_->ModelInfer(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.id(), "any id at all");
  EXPECT_EQ(Text(response), "hellohellohe");
  EXPECT_EQ(response.outputs(1).shape(0), 12);
  EXPECT_EQ(response.raw_output_contents(1), Raw(house_.Bytes("hellohellohe")));
  const auto& parameters = response.parameters();
  EXPECT_TRUE(parameters.at("triton_final_response").bool_param());
  EXPECT_EQ(parameters.at("finish_reason").string_param(), "length");
  EXPECT_EQ(parameters.at("generated_tokens").int64_param(), 12);
  EXPECT_EQ(parameters.at("chunk_size").int64_param(), 8);
  AwaitIdle(house_.stubs());
}

TEST_F(KServe, WhatGenerateRefusesIsRefusedHereWithItsWords) {
  inference::ModelInferRequest request = AskIds({1, 2, 3}, 1 << 20);
  grpc::ClientContext too_long, unknown;
  inference::ModelInferResponse response;
  const grpc::Status refused = stub_->ModelInfer(&too_long, request, &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), HasSubstr("max_tokens"));
  request.set_model_name("gpt");
  const grpc::Status missing = stub_->ModelInfer(&unknown, request, &response);
  EXPECT_EQ(missing.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(missing.error_message(), StartsWith("Request for unknown model: 'gpt'"));
}

TEST_F(KServe, ACancelledInferenceFreesItsMemory) {
  house_.executor().Hold();
  grpc::ClientContext context;
  inference::ModelInferResponse response;
  const inference::ModelInferRequest request = AskIds({1, 2, 3}, 200);
  grpc::CompletionQueue queue;
  const auto call = stub_->AsyncModelInfer(&context, request, &queue);
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  AwaitLoad(house_.stubs(), [](const auto& load) { return load.running_requests() == 1; });
  context.TryCancel();
  void* tag = nullptr;
  bool ok = false;
  ASSERT_TRUE(queue.Next(&tag, &ok));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_LT(house_.StepsUntilIdle(), 100);
}

// -- Streams of many requests ---------------------------------------------------------------------

struct Answer {
  std::string text;
  std::string error;
  int responses = 0;
  bool final = false;
};

TEST_F(KServe, AStreamAnswersManyRequestsEachByItsIdAndAnErrorHarmsNoOther) {
  constexpr int kRequests = 3 * kserve::kStreamRequestsMax;  // more than are read ahead
  grpc::ClientContext context;
  const auto stream = stub_->ModelStreamInfer(&context);
  std::map<std::string, Answer> answers;
  std::thread reader([&] {
    inference::ModelStreamInferResponse response;
    while (stream->Read(&response)) {
      Answer& answer = answers[response.infer_response().id()];
      ++answer.responses;
      answer.error = response.error_message();
      if (!answer.error.empty()) continue;
      EXPECT_FALSE(answer.final);
      answer.text += Text(response.infer_response());
      answer.final =
          response.infer_response().parameters().at("triton_final_response").bool_param();
    }
  });
  for (int i = 0; i < kRequests; ++i) {
    inference::ModelInferRequest request = AskIds({1, 2, 3}, 5);
    request.set_id(std::to_string(i));
    if (i % 2 == 1) (*request.mutable_parameters())["temperature"].set_double_param(-1);
    ASSERT_TRUE(stream->Write(request));
  }
  stream->WritesDone();
  reader.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_THAT(answers, SizeIs(kRequests));
  for (const auto& [id, answer] : answers) {
    if (std::stoi(id) % 2 == 0) {
      EXPECT_EQ(answer.text, "hello") << id << answer.error;
      EXPECT_TRUE(answer.final) << answer.error;
    } else {
      EXPECT_THAT(answer.error, AllOf(StartsWith("INVALID_ARGUMENT: "), HasSubstr("temperature")));
      EXPECT_EQ(answer.responses, 1);
    }
  }
  AwaitIdle(house_.stubs());
}

TEST_F(KServe, AStreamWhoseClientVanishesFreesEverything) {
  house_.executor().Hold();
  {
    grpc::ClientContext context;
    const auto stream = stub_->ModelStreamInfer(&context);
    for (int i = 0; i < 6; ++i) ASSERT_TRUE(stream->Write(AskIds({1, 2, 3}, 200)));
    AwaitLoad(house_.stubs(), [](const auto& load) {
      return load.running_requests() + load.waiting_requests() == 6;
    });
    house_.executor().Allow(20);
    inference::ModelStreamInferResponse response;
    ASSERT_TRUE(stream->Read(&response));
    context.TryCancel();
  }
  EXPECT_LT(house_.StepsUntilIdle(), 100);
}

TEST_F(KServe, AnErrorDoesNotSendBackAllThatWasWrong) {
  inference::ModelInferRequest request = AskIds({1, 2, 3}, 1);
  request.mutable_inputs(0)->set_name(std::string(100'000, 'n'));
  grpc::ClientContext unary, streaming;
  inference::ModelInferResponse response;
  const grpc::Status status = stub_->ModelInfer(&unary, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_LT(status.error_message().size(), 1100);
  const auto stream = stub_->ModelStreamInfer(&streaming);
  request.set_id(std::string(100'000, 'i'));
  ASSERT_TRUE(stream->Write(request));
  inference::ModelStreamInferResponse refused;
  ASSERT_TRUE(stream->Read(&refused));
  EXPECT_THAT(refused.error_message(), HasSubstr("id has 100000 bytes"));
  EXPECT_LT(refused.ByteSizeLong(), 1200);
}

class KServeStalled : public KServe {
 protected:
  KServeStalled() : KServe(ScriptedServer::Options{.reader_stall = absl::Milliseconds(100)}) {}
};

TEST_F(KServeStalled, AStreamThatNobodyReadsIsCancelled) {
  Stubs narrow(house_.address(), 4096);  // bytes that the transport takes in for it
  const auto stub = inference::GRPCInferenceService::NewStub(narrow.channel);
  grpc::ClientContext context;
  const auto stream = stub->ModelStreamInfer(&context);
  while (stream->Write(AskIds({1, 2, 3}, 200))) continue;  // until it is cancelled
  inference::ModelStreamInferResponse response;
  while (stream->Read(&response)) continue;
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  AwaitIdle(house_.stubs());
}

}  // namespace
}  // namespace catserve::testing

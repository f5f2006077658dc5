// catserved as an operator meets it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "grpcpp/generic/generic_stub.h"
#include "kernels/backend_factory.h"
#include "tests/engine/model/golden.h"
#include "tests/server/calls.h"
#include "tests/server/process.h"
#include "tests/server/text_model.h"

namespace catserve::testing {
namespace {

using grpc::health::v1::HealthCheckResponse;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

const std::string kModel = "tests/data/golden/adaptive-tiny";

TEST(Catserved, TellsWhatItServesAndWhere) {
  const TempDirectory directory;
  ServedProcess server(kModel, {"--port_file=" + directory.File("port"), "--slots=4"});
  ASSERT_TRUE(server.WaitUntilServing());
  EXPECT_EQ("127.0.0.1:" + ReadAll(directory.File("port")), server.Address() + "\n");
  EXPECT_EQ("127.0.0.1:" + ReadAll(directory.File("port.metrics")), server.MetricsAddress() + "\n");
  const std::string loaded = server.WaitForError("event=model_loaded");
  EXPECT_THAT(loaded, AllOf(HasSubstr("name=adaptive-tiny"), HasSubstr("kind=cat"),
                            HasSubstr("kv_dtype=F32"), HasSubstr("step_tokens_max=256")));
  EXPECT_THAT(server.WaitForError("event=kv_memory"),
              AllOf(HasSubstr(" bytes="), ContainsRegex("[0-9]+ at chunk size 1, [0-9]+ at 2,")));
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
}

TEST(Catserved, SigtermLetsAcceptedRequestsFinish) {
  ServedProcess server(kModel, {"--slots=2"});
  ASSERT_TRUE(server.WaitUntilServing());
  Stubs stubs(server.Address());
  std::vector<std::unique_ptr<GenerateCall>> calls;
  for (int i = 0; i < 6; ++i) {  // four wait while two run
    calls.push_back(std::make_unique<GenerateCall>(stubs, GreedyRequest({5, 6, 7}, 8, 240)));
  }
  // Slots go in order of arrival: where the last one runs, the others were accepted.
  ASSERT_TRUE(calls.back()->ReadTokens());
  server.Signal(SIGTERM);
  for (auto& call : calls) {
    const Generated got = call->Finish();
    EXPECT_TRUE(got.status.ok()) << got.status.error_message();
    EXPECT_EQ(got.ids().size(), 240);
  }
  EXPECT_EQ(server.Wait(), 0);
  EXPECT_THAT(server.err(), HasSubstr("event=stopped"));
}

TEST(Catserved, ASecondSignalEndsAtOnce) {
  ServedProcess server(kModel, {"--drain_seconds=1000"});
  ASSERT_TRUE(server.WaitUntilServing());
  server.Signal(SIGTERM);
  ASSERT_FALSE(server.WaitForError("event=signal").empty());
  server.Signal(SIGINT);
  const int code = server.Wait();
  EXPECT_TRUE(code == 0 || code == 128 + SIGINT) << code;  // nothing ran: it may be done first
}

TEST(Catserved, HealthReflectionAndMetricsAnswer) {
  ServedProcess server(kModel);
  ASSERT_TRUE(server.WaitUntilServing());
  Stubs stubs(server.Address());
  for (const char* name : {"", "liveness", "readiness", "catserve.v1.Generation"}) {
    EXPECT_EQ(CheckHealth(stubs, name), HealthCheckResponse::SERVING) << name;
  }
  EXPECT_THAT(HttpGet(server.MetricsAddress(), "/metrics"),
              AllOf(HasSubstr("200 OK"), HasSubstr("catserve_ready 1")));
}

TEST(Catserved, ReflectionListsTheServices) {
  ServedProcess server(kModel);
  ASSERT_TRUE(server.WaitUntilServing());
  Stubs stubs(server.Address());
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub(stubs.channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return ok;
  };
  const auto call = stub.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  call->StartCall(nullptr);
  ASSERT_TRUE(next());
  const grpc::Slice list_services(std::string("\x3a\x01*", 3));  // field 7, a string
  call->Write(grpc::ByteBuffer(&list_services, 1), nullptr);
  ASSERT_TRUE(next());
  grpc::ByteBuffer answer;
  call->Read(&answer, nullptr);
  ASSERT_TRUE(next());
  grpc::Slice slice;
  ASSERT_TRUE(answer.DumpToSingleSlice(&slice).ok());
  const std::string bytes(slice.begin(), slice.end());
  for (const char* name :
       {"catserve.v1.Generation", "catserve.v1.Models", "grpc.health.v1.Health"}) {
    EXPECT_THAT(bytes, HasSubstr(name));
  }
  context.TryCancel();
  grpc::Status status;
  call->Finish(&status, nullptr);
  next();
}

// Ends by itself with `code` and one line of stderr that says all these.
void ExpectStartFails(std::vector<std::string> args, int code,
                      const std::vector<std::string>& says) {
  args.insert(args.begin(), ServerBinary());
  Process server(args);
  EXPECT_EQ(server.Wait(), code);
  for (const std::string& text : says) EXPECT_THAT(server.err(), HasSubstr(text));
  const std::string err = server.err();
  for (const absl::string_view line : absl::StrSplit(err, '\n', absl::SkipEmpty())) {
    const bool ours = absl::StartsWith(line, "time=") || absl::StartsWith(line, "catserved: ");
    EXPECT_TRUE(ours) << "a library's own line: " << line;
  }
}

TEST(Catserved, BadFlagsEndWithCodeTwoAndARemedy) {
  const std::vector<std::string> quiet = {"--listen_address=127.0.0.1:0", "--metrics_address="};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), quiet.begin(), quiet.end());
    return more;
  };
  ExpectStartFails({}, 2, {"--model=DIRECTORY"});
  ExpectStartFails({"--model=x", "--threds=3"}, 2, {"--threds", "--threads"});
  ExpectStartFails({"--model=x", "--threads=-1"}, 2, {"--threads=-1", "0 to 1024"});
  ExpectStartFails(with({"--model=no/such/place"}), 2, {"no/such/place"});
  ExpectStartFails(with({"--model=" + kModel, "--default_budget=5"}), 2,
                   {"--default_budget=5", "1, 2, 4, 8, 16"});
  ExpectStartFails(with({"--model=" + kModel, "--default_budget=auto,quality_loss_max=0.1"}), 2,
                   {"--default_budget=auto,quality_loss_max=0.1: budget.auto", "make evaluate"});
  ExpectStartFails(with({"--model=" + kModel, "--step_tokens_max=1"}), 2,
                   {"step_tokens_max 1 must be", "or more for 32 slots"});
  ExpectStartFails(with({"--model=" + kModel, "--kv_memory_bytes=1000"}), 2,
                   {"--kv_memory_bytes=1000", "or more"});
  ExpectStartFails(with({"--model=" + kModel, "--kv_memory_bytes=1000000000000000"}), 2,
                   {"--kv_memory_bytes=1000000000000000", "or less"});
  ExpectStartFails(with({"--model=" + kModel, "--weight_dtype=F8_E4M3"}), 2,
                   {"no weights of F8_E4M3", "I8"});
}

TEST(Catserved, ABackendThatThisBuildHasNotIsAClearError) {
  const absl::Status cuda = MakeBackend("cuda", 1).status();
  if (!absl::IsInvalidArgument(cuda)) GTEST_SKIP() << "this build has it";
  ExpectStartFails(
      {"--model=" + kModel, "--backend=cuda", "--listen_address=127.0.0.1:0", "--metrics_address="},
      2, {"--backend=cuda", "this build has cpu", "make cuda"});
}

TEST(Catserved, AMissingGpuIsAClearError) {
  const absl::Status cuda = MakeBackend("cuda", 1).status();
  if (!absl::IsUnavailable(cuda)) GTEST_SKIP() << "this build has no cuda, or a GPU answers";
  ExpectStartFails(
      {"--model=" + kModel, "--backend=cuda", "--listen_address=127.0.0.1:0", "--metrics_address="},
      1, {"--backend=cuda", "--backend=cpu does not"});
}

TEST(Catserved, HelpTellsFlagsAndExitCodes) {
  Process help({ServerBinary(), "--help"});
  EXPECT_EQ(help.Wait(), 0);
  EXPECT_THAT(help.out(), AllOf(HasSubstr("--step_tokens_max"), HasSubstr("Exit code: 0")));
}

TEST(Catserved, TellsItsVersion) {
  Process version({ServerBinary(), "--version"});
  EXPECT_EQ(version.Wait(), 0);
  EXPECT_THAT(version.out(), MatchesRegex("catserved [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST(Catserved, ATakenPortIsAClearError) {
  ServedProcess first(kModel);
  const std::string taken = first.Address();
  ExpectStartFails({"--model=" + kModel, "--listen_address=" + taken, "--metrics_address="}, 1,
                   {"--listen_address=" + taken, "another server"});
  ExpectStartFails({"--model=" + kModel, "--listen_address=127.0.0.1:0",
                    "--metrics_address=" + first.MetricsAddress()},
                   1, {"--metrics_address=" + first.MetricsAddress(), "another server"});
}

TEST(Catserved, AHostileCardIsAClearError) {
  const TempDirectory directory;
  WriteTextModel(directory);
  directory.Write("card.json", "{\"dense_twin\": {\"dim\": \"huge\"}}");
  ExpectStartFails(
      {"--model=" + directory.path(), "--listen_address=127.0.0.1:0", "--metrics_address="}, 2,
      {"card.json", "dense_twin.dim"});
}

TEST(Catserved, TheCardsValuesBoundTheDefaultBudgetAndThatOfARequest) {
  const TempDirectory directory;
  WriteTextModel(directory);
  directory.Write("card.json", R"({"tasks": [
      {"name": "text", "measure": "bits per byte", "better": "lower",
       "values": [{"chunk_size": 4, "value": 1.7}, {"chunk_size": 16, "value": 1.6}]},
      {"name": "recall", "measure": "accuracy", "better": "higher",
       "values": [{"chunk_size": 2, "value": 0.9}, {"chunk_size": 4, "value": 0.99}]}]})");
  ServedProcess server(directory.path(),
                       {"--default_budget=auto,quality_task=recall,quality_loss_max=0.05"});
  ASSERT_TRUE(server.WaitUntilServing()) << server.err();
  Stubs stubs(server.Address());
  grpc::ClientContext context;
  v1::GetModelResponse model;
  ASSERT_TRUE(stubs.models->GetModel(&context, {}, &model).ok());
  EXPECT_EQ(model.quality_tasks_size(), 2);
  Process shown({ClientBinary(), "model", "--server=" + server.Address()});
  EXPECT_EQ(shown.Wait(), 0);
  EXPECT_THAT(shown.out(), HasSubstr("default budget: auto, 1 to 16, quality_loss_max 0.05, "
                                     "quality_task recall\n"));
  EXPECT_EQ(model.default_budget().auto_().quality_task(), "recall");
  EXPECT_EQ(model.default_budget().auto_().quality_loss_max(), 0.05);
  v1::GenerateRequest request = GreedyRequest({1, 2, 3}, 0, 4);
  EXPECT_EQ(Generate(stubs, request).started().chunk_size(), 4);  // of 4 alone
  request.mutable_budget()->mutable_auto_();
  EXPECT_EQ(Generate(stubs, request).started().chunk_size(), 1);  // text has not measured all
  request.mutable_budget()->mutable_auto_()->set_quality_loss_max(0.05);
  EXPECT_EQ(Generate(stubs, request).started().chunk_size(), 16);
}

TEST(Catserved, ARequestLeavesALineIfTheConfigurationAsksAndNeverAWord) {
  const TempDirectory directory;
  WriteTextModel(directory);
  directory.Write("on.yaml", "logging: {requests: true}\n");
  directory.Write("off.yaml", "logging: {requests: false}\n");
  for (const char* config : {"on.yaml", "off.yaml"}) {
    ServedProcess server(directory.path(), {"--config=" + directory.File(config)});
    ASSERT_TRUE(server.WaitUntilServing()) << server.err();
    Stubs stubs(server.Address());
    v1::GenerateRequest request;
    request.set_request_id("told");
    request.mutable_prompt()->set_text("a secret");
    request.mutable_budget()->set_chunk_size(4);
    request.mutable_stopping()->set_max_tokens(9);
    request.mutable_stopping()->set_ignore_eos(true);
    ASSERT_TRUE(Generate(stubs, request).status.ok());
    server.Signal(SIGTERM);
    EXPECT_EQ(server.Wait(), 0);
    const bool on = config[1] == 'n';
    EXPECT_EQ(absl::StrContains(server.err(), "event=request method=Generate request_id=told"), on);
    EXPECT_EQ(absl::StrContains(server.err(), "code=OK reason=length"), on);
    EXPECT_EQ(absl::StrContains(server.err(), "generated_tokens=9 chunk_size=4"), on);
    EXPECT_FALSE(absl::StrContains(server.err(), "secret"));
  }
}

TEST(Catserved, KvMemoryOf8BitsIsCountedWithItsScales) {
  const TempDirectory directory;
  WriteTextModel(directory);
  directory.Write("card.json", R"({"name": "tiny text",
      "dense_twin": {"dim": 64, "n_layer": 2, "n_local_heads": 2, "head_dim": 32}})");
  int64_t per_entry[2];
  for (const bool narrow : {false, true}) {
    ServedProcess server(directory.path(), {narrow ? "--kv_dtype=I8" : "--kv_dtype=F32"});
    ASSERT_TRUE(server.WaitUntilServing()) << server.err();
    Stubs stubs(server.Address());
    grpc::ClientContext context;
    v1::GetModelResponse model;
    ASSERT_TRUE(stubs.models->GetModel(&context, {}, &model).ok());
    EXPECT_EQ(model.kv_dtype(), narrow ? "I8" : "F32");
    EXPECT_EQ(model.dense_twin_kv_bytes_per_1000_tokens(),
              1000.0 * 2 * 2 * 2 * (narrow ? 34 : 128));
    per_entry[narrow] = model.kv_bytes_per_entry();
    const Generated whole = Generate(stubs, GreedyRequest({1, 2, 3}, 0, 20));
    EXPECT_EQ(whole.finished().usage().kv_bytes_peak() % (16 * per_entry[narrow]), 0);
    AwaitIdle(stubs);
  }
  EXPECT_LT(per_entry[true] * 3, per_entry[false]);
  EXPECT_GT(per_entry[true] * 4, per_entry[false]) << "the scales";
}

TEST(Catserved, TextAndStopStringsThroughARealModel) {
  const TempDirectory directory;
  WriteTextModel(directory);
  directory.Write("card.json", R"({"name": "tiny text",
      "dense_twin": {"dim": 64, "n_layer": 2, "n_local_heads": 2, "head_dim": 32}})");
  ServedProcess server(directory.path(), {"--default_budget=4"});
  ASSERT_TRUE(server.WaitUntilServing()) << server.err();
  Stubs stubs(server.Address());
  v1::GenerateRequest request;
  request.mutable_prompt()->set_text("Once upon a time");
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_tokens(100);
  const Generated whole = Generate(stubs, request);
  ASSERT_TRUE(whole.status.ok()) << whole.status.error_message();
  EXPECT_EQ(whole.started().chunk_size(), 4);
  EXPECT_GT(whole.finished().usage().kv_bytes_dense_twin(), 0);
  EXPECT_LT(whole.finished().usage().kv_bytes_peak(),
            whole.finished().usage().kv_bytes_dense_same_width());

  // Any piece of the text that spans tokens: the same request then ends just before it.
  const std::string text = whole.text();
  ASSERT_GT(text.size(), 40u);
  size_t from = 20;
  while ((text[from] & 0xC0) == 0x80) ++from;  // not inside a character
  size_t to = from + 12;
  while ((text[to] & 0xC0) == 0x80) ++to;
  const std::string stop = text.substr(from, to - from);
  request.mutable_stopping()->add_stop(stop);
  const Generated cut = Generate(stubs, request);
  EXPECT_EQ(cut.text(), text.substr(0, text.find(stop)));
  EXPECT_EQ(cut.choice_end().stop(), stop);
  EXPECT_LT(cut.ids().size(), whole.ids().size());
  AwaitIdle(stubs);
}

}  // namespace
}  // namespace catserve::testing

// catctl end to end: the real client against the real server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <thread>

#include "absl/strings/str_cat.h"
#include "server/health_port.h"
#include "tests/server/calls.h"
#include "tests/server/process.h"
#include "tests/server/proxy.h"
#include "tests/server/scripted_server.h"
#include "tests/server/text_model.h"

namespace catserve::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;

struct Ran {
  int code;
  std::string out, err;
};

Ran RunClient(std::vector<std::string> args, const std::string& input = "") {
  args.insert(args.begin(), ClientBinary());
  Process process(args, input);
  const int code = process.Wait();
  return {code, process.out(), process.err()};
}

TEST(Catctl, GeneratesTextWithEitherSpellingOfAFlag) {
  ScriptedServer house;
  house.executor().SetScript(house.Bytes("a cat sat"));
  const std::string server = "--server=" + house.address();
  const Ran dashes = RunClient(
      {"generate", server, "--chunk-size", "8", "--max-tokens=9", "--stats", "Once upon"});
  EXPECT_EQ(dashes.code, 0) << dashes.err;
  EXPECT_EQ(dashes.out, "a cat sat\n");
  EXPECT_THAT(dashes.err, AllOf(HasSubstr("chunk size 8"), HasSubstr("first token after"),
                                HasSubstr("tokens/s"), HasSubstr("peak KV memory"),
                                HasSubstr("the dense twin")));
  const Ran underscores =
      RunClient({"generate", server, "--chunk_size=4", "--max_tokens", "5", "--stop= s,zz", "x"});
  EXPECT_EQ(underscores.out, "a cat\n");
  const Ran stdin_prompt = RunClient(
      {"generate", server, "--auto", "--prompt-file", "-", "--max-tokens=5"}, "Once upon");
  EXPECT_EQ(stdin_prompt.out, "a cat\n") << stdin_prompt.err;
  const Ran two = RunClient({"generate", server, "--n=2", "--max-tokens=5", "x"});
  EXPECT_EQ(two.out, "--- choice 0\na cat\n--- choice 1\n cat \n");
  const Ran json = RunClient({"generate", server, "--json", "--seed=7", "--max-tokens=1", "x"});
  EXPECT_THAT(json.out, AllOf(StartsWith("{\"started\":"), HasSubstr("\"seed\":\"7\""),
                              HasSubstr("\"finished\":")));
}

TEST(Catctl, ShowsTheDialAndTheLoad) {
  ScriptedServer house;
  const std::string server = "--server=" + house.address();
  const Ran model = RunClient({"model", server});
  EXPECT_EQ(model.code, 0) << model.err;
  EXPECT_THAT(model.out,
              AllOf(HasSubstr("scripted: cat, 1234 parameters"), HasSubstr("context 256"),
                    HasSubstr("8 slots"), HasSubstr("auto, 4 to 16")));
  const Ran load = RunClient({"load", server});
  EXPECT_EQ(load.out,
            "running 0 (0 paused), waiting 0, KV pages 0 used, 0 cached of 256 (1572864 bytes)\n");
  EXPECT_THAT(RunClient({"model", server, "--json"}).out, HasSubstr("\"chunkSizes\":[{"));
}

TEST(Catctl, ShowsTheMeasuredQualityBesideTheCostOfEachChunkSize) {
  ModelCard card = ScriptedCard();
  card.tasks = {
      {"text", "bits per byte of held-out text", false, {{4, 1.654}, {8, 1.5705}, {16, 1.5}}, 1.52},
      {"recall_16", "accuracy with 16 pairs", true, {{4, 1.0}, {8, 1.0}}, std::nullopt},
      {"recall_4", "accuracy with 4 pairs", true, {{4, 1.0}, {8, 0.5}}, 1.0}};
  ScriptedServer house({.card = card});
  const Ran model = RunClient({"model", "--server=" + house.address()});
  EXPECT_THAT(model.out, HasSubstr(R"(
chunk size  KV bytes/1,000 tokens  decode cost  recall_4   recall_16     text
         4                  96000        0.481    1.0000*     1.0000*  1.6540
         8                  48000        0.430    0.5000      1.0000*  1.5705
        16                  24000        0.413         -           -   1.5000*
dense twin                 512000        1.000    1.0000           -   1.5200
same width                 384000

* best. A request may bound what it loses: --auto --quality-loss-max=0.05
--quality-task recall_4: accuracy with 4 pairs, higher is better
            or recall_16: accuracy with 16 pairs, higher is better
            or text: bits per byte of held-out text, lower is better (the default)
)"));
  ScriptedServer bare({.card = ModelCard()});
  EXPECT_THAT(RunClient({"model", "--server=" + bare.address()}).out,
              HasSubstr("quality: not measured; `make evaluate"));
}

TEST(Catctl, BoundsARequestsQuality) {
  ModelCard card = ScriptedCard();
  card.tasks[0].values = {{4, 1.6}, {8, 1.5}, {16, 2}};
  ScriptedServer house({.card = card});
  const auto ask = [&](const std::string& flag) {
    return RunClient({"generate", "--server=" + house.address(), flag, "--stats", "x"});
  };
  EXPECT_THAT(ask("--quality-loss-max=0.1").err, HasSubstr("chunk size 8,"));
  EXPECT_THAT(ask("--quality-task=text").err, HasSubstr("chunk size 8,"));
  const Ran unknown = ask("--quality-task=recall");
  EXPECT_EQ(unknown.code, 1);
  EXPECT_THAT(unknown.err, HasSubstr("budget.auto.quality_task is not on the model's card"));
}

TEST(Catctl, ScoresLongTextsInPiecesOfTheContext) {
  const TempDirectory directory;
  WriteTextModel(directory);
  ServedProcess served(directory.path());
  ASSERT_TRUE(served.WaitUntilServing());
  const std::string server = "--server=" + served.Address();
  std::string text;
  for (int i = 0; i < 100; ++i) text += "the cat and the " + std::to_string(i) + " dogs. ";
  directory.Write("text.txt", text);
  const Ran ran =
      RunClient({"score", server, "--file=" + directory.File("text.txt"), "--chunk-size=4,16"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("cut between"), HasSubstr("bits/byte"),
                             HasSubstr("\n         4  "), HasSubstr("\n        16  ")));
  const Ran ids = RunClient({"tokenize", server, "the cat"});
  EXPECT_EQ(ids.code, 0) << ids.err;
  EXPECT_THAT(ids.out, ::testing::MatchesRegex("[0-9]+( [0-9]+)*\n"));
}

TEST(Catctl, WaitsUntilTheServerIsReady) {
  ScriptedServer house(ScriptedServer::Options{.serve = false});
  Process waiting({ClientBinary(), "wait", "--server=" + house.address()});
  std::thread serve([&] { house.Serve(); });
  EXPECT_EQ(waiting.Wait(), 0);
  serve.join();
}

TEST(Catctl, CtrlCCancelsOnTheServer) {
  ScriptedServer house;
  house.executor().SetScript(house.Bytes("tick "));
  house.executor().Hold();
  Process client(
      {ClientBinary(), "generate", "--server=" + house.address(), "--max-tokens=200", "x"});
  house.executor().Allow(20);
  ASSERT_FALSE(client.WaitForOutputPart("tick").empty());
  client.Signal(SIGINT);
  EXPECT_EQ(client.Wait(), 130);
  EXPECT_THAT(client.err(), HasSubstr("interrupted"));
  EXPECT_LT(house.StepsUntilIdle(), 150);  // not the 180 or more that were left
}

// catctl plan on a server of eight slots that computes nothing until it is allowed to.
std::vector<std::string> PlanOf(const ScriptedServer& house) {
  return {ClientBinary(),        "plan",
          "--measure-seconds=1", "--server=" + house.address(),
          "--prompt-tokens=8",   "--generated-tokens=240",
          "--utilisation=1",     "--requests-per-second=1"};
}

TEST(Catctl, TheFirstCtrlCCancelsAllThatPlanMeasures) {
  ScriptedServer house;
  house.executor().Hold();
  Process plan(PlanOf(house));
  AwaitLoad(house.stubs(), [&](const v1::GetLoadResponse& load) {
    if (load.running_requests() == 8) return true;
    house.executor().Allow(1);
    return false;
  });
  plan.Signal(SIGINT);
  EXPECT_EQ(plan.Wait(), 130);  // though no stream gets another token
  EXPECT_THAT(plan.err(), HasSubstr("interrupted"));
  house.executor().Release();
}

TEST(Catctl, PlanGivesUpAfterTheTimeout) {
  ScriptedServer house;
  house.executor().Hold();
  std::vector<std::string> args = PlanOf(house);
  args.push_back("--timeout-seconds=1");
  Process plan(args);
  EXPECT_EQ(plan.Wait(), 1);
  EXPECT_THAT(plan.err(), HasSubstr("no answer within --timeout_seconds"));
  house.executor().Release();
}

TEST(Catctl, ErrorsSayWhatToDo) {
  const Ran unreachable = RunClient({"model", "--server=127.0.0.1:1"});
  EXPECT_EQ(unreachable.code, 1);
  EXPECT_THAT(
      unreachable.err,
      AllOf(HasSubstr("catctl: cannot reach 127.0.0.1:1: start the server with `make serve`, or "
                      "name another one with --server=HOST:PORT; a server with TLS needs --tls_ca"),
            HasSubstr("refused")));  // gRPC's own reason
  ScriptedServer house;
  const std::string server = "--server=" + house.address();
  const struct {
    std::vector<std::string> args;
    int code;
    const char* says;
  } cases[] = {
      {{"generate", server, "--chunk-size=5", "x"}, 1, "4, 8, 16"},
      {{"generate", server}, 2, "generate needs one prompt"},
      {{"generate", server, "--chunk-size=8", "--auto", "x"}, 2, "either"},
      {{"generate", server, "--chunk-size=big", "x"}, 2, "--chunk_size=big"},
      {{"generate", server, "--temprature=1", "x"}, 2, "--temperature"},
      {{"generate", server, "--prompt-file=/no/such/file"}, 2, "/no/such/file"},
      {{"generate", server, "--prompt-file=/tmp"}, 2, "cannot read /tmp"},
      {{"generate", server, "--prompt-file=/dev/zero"}, 2, "/dev/zero is longer than 67108864"},
      {{"generate", "--server=127.0.0.1:99999", "a"}, 2, "a port from 0 to 65535"},
      {{"score", server, "--file=/dev/null"}, 2, "nothing to score"},
      {{"score", server}, 2, "--file"},
      {{"score", server, "--file=/no/such/file"}, 2, "/no/such/file"},
      {{"tokenize", server}, 2, "needs a text"},
      {{"generate", server, "--chunk-size=8", "--kv-bytes-max=9999", "x"}, 2, "either"},
      {{"generate", server, "--chunk-size=8", "--quality-loss-max=0.1", "x"}, 2, "either"},
      {{"generate", server, "--quality-loss-max=much", "x"}, 2, "--quality_loss_max"},
      {{"score", server, "--file=/etc/passwd", "--chunk-size=-4"}, 1, "chunk_size -4 is not"},
      {{"plan", server, "--requests-per-second=1", "--measure-seconds=inf"}, 2, "at most 3600"},
      {{"generate", server, "--priority=101", "x"}, 1, "priority 101"},
      {{"generate", server, "--cache-salt=" + std::string(129, 's'), "x"}, 1, "cache_salt has 129"},
      {{"load", server, "extra"}, 2, "load takes nothing after it, but got \"extra\""},
      {{"model", server, "extra"}, 2, "model takes nothing after it"},
      {{"wait", server, "extra"}, 2, "wait takes nothing after it"},
      {{"load", server, "--timeout-seconds", "-1"}, 2, "--timeout_seconds=-1 is out of range"},
      {{"load", server, "--timeout-seconds=nan"}, 2, "--timeout_seconds=nan is out of range"},
      {{"genrate", server}, 2, "there is no command genrate. Use"},
      {{}, 2, "which command"},
  };
  for (const auto& bad : cases) {
    SCOPED_TRACE(bad.says);
    const Ran ran = RunClient(bad.args);
    EXPECT_EQ(ran.code, bad.code);
    EXPECT_THAT(ran.err, AllOf(StartsWith("catctl: "), HasSubstr(bad.says)));
  }
}

// As a script writes them whose variable is not set: such a bound was no bound at all.
TEST(Catctl, AnEmptyValueDoesNotUnsetABound) {
  for (const std::string flag : {"quality_loss_max", "quality_task", "kv_bytes_max", "max_tokens",
                                 "temperature", "seed", "n", "priority"}) {
    const Ran ran = RunClient({"generate", "--server=127.0.0.1:1", "--" + flag + "=", "x"});
    EXPECT_EQ(ran.code, 2) << flag;
    EXPECT_THAT(ran.err, HasSubstr("--" + flag + " has an empty value: give one, or leave"));
  }
}

TEST(Catctl, ATextLargerThanAMessageIsRefusedWithARemedy) {
  ScriptedServer house;
  const Ran ran = RunClient({"generate", "--server=" + house.address(), "--prompt-file=-"},
                            std::string(5 << 20, 'x'));
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, HasSubstr("send less, or start the server with a larger --request_bytes"));
}

TEST(Catctl, TheHealthPortIsRecognized) {
  const auto health = HealthPort::Start("127.0.0.1:0");
  ASSERT_TRUE(health.ok());
  const std::string address = absl::StrCat("127.0.0.1:", (*health)->port());
  for (std::vector<std::string> args :
       {std::vector<std::string>{"model"}, {"load"}, {"generate", "x"}}) {
    args.push_back("--server=" + address);
    const Ran ran = RunClient(args);
    EXPECT_EQ(ran.code, 1);
    EXPECT_EQ(ran.err, absl::StrCat("catctl: UNIMPLEMENTED: the server at ", address,
                                    " does not answer this; is it the health port?\n"));
  }
}

TEST(Catctl, HelpIsThereHoweverItIsAskedFor) {
  const std::vector<std::vector<std::string>> ways = {
      {"help"}, {"-h"}, {"--help"}, {"--server=127.0.0.1:1", "help"}, {"generate", "--help"}};
  for (const std::vector<std::string>& way : ways) {
    SCOPED_TRACE(way.front());
    const Ran help = RunClient(way);
    EXPECT_EQ(help.code, 0) << help.err;
    EXPECT_THAT(help.out, AllOf(HasSubstr("catctl generate"), HasSubstr("--chunk_size"),
                                HasSubstr("Exit code: 0")));
  }
}

TEST(Catctl, TellsItsVersion) {
  const Ran version = RunClient({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_THAT(version.out, MatchesRegex("catctl [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST(Catctl, InvalidTextIsOneLineThatNamesTheByte) {
  ScriptedServer house;
  const Ran ran = RunClient({"generate", "--server=" + house.address(), "ab\xFF"});
  EXPECT_EQ(ran.code, 1);
  EXPECT_EQ(
      ran.err,
      "catctl: prompt.text: not valid UTF-8 at byte 2; send UTF-8 text or prompt.token_ids\n");
}

TEST(Catctl, AStreamThatIsCutOffIsToldFromAServerThatIsNotThere) {
  ScriptedServer house;
  house.executor().SetScript(house.Bytes("tick "));
  house.executor().Hold();
  Proxy proxy(house.address());
  Process client({ClientBinary(), "generate", "--server=" + proxy.address(), "x"});
  house.executor().Allow(20);
  ASSERT_FALSE(client.WaitForOutputPart("tick").empty());
  proxy.Cut();
  EXPECT_EQ(client.Wait(), 1);
  EXPECT_THAT(client.err(), AllOf(HasSubstr("the answer was cut off: " + proxy.address()),
                                  Not(HasSubstr("start the server"))));
}

TEST(Catctl, TellsWhenTheServerChangedTheChunkSizeOrMemoryEndedTheText) {
  // Room for one text of 240 tokens at chunk size 4, or for two at 8.
  ScriptedServer house(ScriptedServer::Options{.slots = 2, .kv_pages = 6});
  house.executor().SetScript(house.Bytes("tick "));
  house.executor().Hold();
  const std::string server = "--server=" + house.address();
  Process client({ClientBinary(), "generate", server, "--auto", "--max-tokens=240", "x"});
  house.executor().Allow(20);
  ASSERT_FALSE(client.WaitForOutputPart("tick").empty());
  GenerateCall call(house.stubs(), GreedyRequest({1, 2, 3}, 8, 240));
  AwaitLoad(house.stubs(), [](const auto& load) {
    return load.running_requests() + load.waiting_requests() == 2;
  });
  house.executor().Release();
  EXPECT_EQ(client.Wait(), 0) << client.err();
  EXPECT_THAT(client.err(),
              HasSubstr("catctl: the server changed the chunk size from 4 to 8 at token "));
  EXPECT_TRUE(call.Finish().status.ok());

  const Ran full = RunClient({"generate", server, "--kv-bytes-max=6144", "--max-tokens=240", "x"});
  EXPECT_EQ(full.code, 0);
  EXPECT_THAT(full.err, HasSubstr("catctl: the text was cut by --kv_bytes_max\n"));
}

TEST(Catctl, AFullDiskIsAnError) {
  ScriptedServer house;
  Process process(
      {"/bin/sh", "-c", ClientBinary() + " model --server=" + house.address() + " >/dev/full"}, "");
  EXPECT_EQ(process.Wait(), 1);
  EXPECT_THAT(process.err(), HasSubstr("cannot write the output"));
}

TEST(Catctl, ATextThatTheServerCutIsNoSuccess) {
  ScriptedServer house;
  house.executor().Hold();
  Process process({ClientBinary(), "generate", "--server=" + house.address(), "--json", "x"}, "");
  house.executor().Allow(2);
  v1::AbortRequest abort;
  v1::AbortResponse found;
  const std::string started = process.WaitForOutputPart("\"promptTokens\"");
  const size_t id = started.find("r-");
  ASSERT_NE(id, std::string::npos) << started;
  abort.set_request_id(started.substr(id, started.find('"', id) - id));
  grpc::ClientContext context;
  ASSERT_TRUE(house.stubs().generation->Abort(&context, abort, &found).ok());
  EXPECT_TRUE(found.found());
  house.executor().Release();
  EXPECT_EQ(process.Wait(), 1);
  EXPECT_THAT(process.err(), HasSubstr("ended this text early"));
}

}  // namespace
}  // namespace catserve::testing

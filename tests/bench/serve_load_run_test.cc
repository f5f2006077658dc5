// serve_load against the real server: every request that it says it sent came to the end it says.
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/server/calls.h"
#include "tests/server/process.h"
#include "tests/server/text_model.h"

namespace catserve::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const std::string kModel = "tests/data/golden/adaptive-tiny";
const std::string kServeLoad = std::string(CATSERVE_BINARY_DIR) + "/bench/serve_load";

class ServeLoad : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(server_.WaitUntilServing()); }

  // The JSON of a run that must succeed.
  json Run(std::vector<std::string> flags) {
    std::vector<std::string> args = {kServeLoad, "--server=" + server_.Address(),
                                     "--json=" + directory_.File("load.json")};
    args.insert(args.end(), flags.begin(), flags.end());
    Process load(args);
    EXPECT_EQ(load.Wait(), 0) << load.err();
    std::ifstream in(directory_.File("load.json"));
    return json::parse(in);
  }

  const TempDirectory directory_;
  ServedProcess server_{kModel, {"--slots=4"}};
};

TEST_F(ServeLoad, AClosedLoopGetsEveryTokenItAskedFor) {
  const json result = Run({"--concurrency=3", "--requests=9", "--duration_seconds=300",
                           "--lengths=20:8", "--budgets=8:0.5,auto8-16:0.5", "--record_calls"});
  EXPECT_EQ(result["summary"]["requests"], 9);
  EXPECT_EQ(result["summary"]["finished"], 9);
  EXPECT_EQ(result["summary"]["tokens"], 9 * 8);
  EXPECT_EQ(result["summary"]["prompt_tokens"], 9 * 20);
  EXPECT_EQ(result["summary"]["codes"], (json{{"OK", 9}}));
  EXPECT_EQ(result["summary"]["reasons"], (json{{"LENGTH", 9}}));
  ASSERT_EQ(result["calls"].size(), 9);
  for (const json& call : result["calls"]) EXPECT_EQ(call["token_times"].size(), 8);
}

TEST_F(ServeLoad, AnOpenLoopWithCancelsAndSlowReadersLeavesAnIdleServer) {
  const json result =
      Run({"--rate=40", "--requests=20", "--duration_seconds=30", "--lengths=10:20", "--budgets=16",
           "--cancel_share=0.4", "--slow_share=0.4", "--slow_pause_ms=1", "--temperature=1"});
  const json& summary = result["summary"];
  EXPECT_EQ(summary["requests"], 20);
  EXPECT_EQ(summary["failed"], 0);
  EXPECT_EQ(summary["cut"], 0);
  EXPECT_EQ(summary["finished"].get<int>() + summary["cancelled"].get<int>(), 20);
  Stubs stubs(server_.Address());
  AwaitLoad(stubs, [](const auto& load) {
    return load.running_requests() == 0 && load.waiting_requests() == 0;
  });
}

TEST_F(ServeLoad, RefusesWhatItCannotDoWithOneLine) {
  Process load({kServeLoad, "--server=" + server_.Address(), "--rate=1", "--lengths=100000:1"});
  EXPECT_EQ(load.Wait(), 2);
  EXPECT_THAT(load.err(), HasSubstr("do not fit the context"));
}

}  // namespace
}  // namespace catserve::testing

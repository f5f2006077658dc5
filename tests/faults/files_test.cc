// Files that change or fail under a running server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/engine/model/checkpoint_writer.h"
#include "tests/engine/model/golden.h"
#include "tests/faults/vitals.h"
#include "tests/server/calls.h"
#include "tests/server/process.h"
#include "tests/server/text_model.h"

namespace catserve::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::string kModel = "tests/data/golden/adaptive-tiny";

std::string Answer(Stubs& stubs) {
  v1::GenerateRequest request = GreedyRequest({}, 8, 60);
  request.mutable_prompt()->set_text("Once upon a time");
  const Generated got = Generate(stubs, request);
  EXPECT_TRUE(got.status.ok()) << got.status.error_message();
  return got.text();
}

// Everything is read before the server is ready, and nothing afterwards: no page of a file is
// mapped, so that a file which is cut short cannot end the process (SIGBUS).
TEST(Files, ACheckpointChangedUnderARunningServerChangesNothing) {
  const TempDirectory directory;
  WriteTextModel(directory);
  ServedProcess server(directory.path());
  ASSERT_TRUE(server.WaitUntilServing()) << server.err();
  EXPECT_THAT(ReadAll(absl::StrCat("/proc/", server.pid(), "/maps")),
              Not(HasSubstr(directory.path())));
  Stubs stubs(server.Address());
  const std::string answer = Answer(stubs);
  using Path = std::filesystem::path;
  const std::vector<std::pair<const char*, std::function<void(const Path&)>>> changes = {
      {"overwritten",
       [](const Path& file) {
         const auto size = std::filesystem::file_size(file);
         std::fstream(file, std::ios::in | std::ios::out) << std::string(size, '\xff');
       }},
      {"truncated", [](const Path& file) { std::filesystem::resize_file(file, 10); }},
      {"replaced",
       [](const Path& file) {
         std::ofstream(file.string() + ".new") << "another checkpoint";
         std::filesystem::rename(file.string() + ".new", file);
       }},
      {"deleted", [](const Path& file) { std::filesystem::remove(file); }},
  };
  for (const auto& [what, change] : changes) {
    for (const char* name : {"model.safetensors", "config.json", "vocab.json", "merges.txt"}) {
      change(directory.File(name));
    }
    EXPECT_EQ(Answer(stubs), answer) << what;
  }
  std::filesystem::remove_all(directory.path());
  EXPECT_EQ(Answer(stubs), answer) << "without its directory";
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
}

// -- Logs -----------------------------------------------------------------------------------------

// A server whose stderr is what `redirection` makes of it.
class LoggingTo {
 public:
  explicit LoggingTo(const std::string& redirection)
      : process_({"/bin/bash", "-c",
                  absl::StrCat("exec ", ServerBinary(), " --model=", kModel,
                               " --listen_address=127.0.0.1:0 --metrics_address=",
                               " --threads=2 --port_file=", directory_.File("port"), " ",
                               redirection)}) {}

  std::string Address() const {
    while (!std::filesystem::exists(directory_.File("port"))) absl::SleepFor(absl::Milliseconds(5));
    const std::string port = ReadAll(directory_.File("port"));
    return "127.0.0.1:" + port.substr(0, port.find('\n'));
  }
  Process& process() { return process_; }

 private:
  TempDirectory directory_;
  Process process_;
};

// Serves, answers, and drains with code 0.
void ExpectServes(LoggingTo& server) {
  Stubs stubs(server.Address());
  using grpc::health::v1::HealthCheckResponse;
  while (CheckHealth(stubs, "readiness") != HealthCheckResponse::SERVING) continue;
  for (int i = 0; i < 20; ++i) {
    const Generated got = Generate(stubs, GreedyRequest({5, 6, 7}, 8, 40));
    EXPECT_TRUE(got.status.ok()) << got.status.error_message();
    EXPECT_EQ(got.ids().size(), 40);
    EXPECT_FALSE(Generate(stubs, GreedyRequest({5, 6, 7}, 7, 40)).status.ok());
  }
  server.process().Signal(SIGTERM);
  EXPECT_EQ(server.process().Wait(), 0);
}

TEST(Files, AFullDiskForLogsStopsNothing) {
  LoggingTo server("2>/dev/full");
  ExpectServes(server);
}

TEST(Files, ALogReaderThatDiedStopsNothing) {
  LoggingTo server("2> >(exit 0)");
  ExpectServes(server);
}

// Without a stderr the next file or connection would get its number, and the log's lines.
TEST(Files, AClosedStderrSendsNoLogLinesElsewhere) {
  LoggingTo without_any("0<&- 1>&- 2>&-");
  ASSERT_FALSE(without_any.Address().empty());
  const std::string stderr_link = absl::StrCat("/proc/", without_any.process().pid(), "/fd/2");
  EXPECT_EQ(std::filesystem::read_symlink(stderr_link), "/dev/null");
  ExpectServes(without_any);
  LoggingTo without_stderr("2>&-");
  ExpectServes(without_stderr);
}

}  // namespace
}  // namespace catserve::testing

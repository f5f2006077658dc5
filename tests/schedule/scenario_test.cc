// Plays every file of tests/schedule/scenarios and compares what it writes below each command.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "tests/schedule/stage.h"

namespace catserve {
namespace {

using testing::HasSubstr;

constexpr char kFolder[] = "tests/schedule/scenarios";

// The text with what its commands bring about, so many steps being in flight, or as many as it
// says. Errors: INVALID_ARGUMENT, "name:line: what".
absl::StatusOr<std::string> PlayScenario(const std::string& name, absl::string_view text,
                                         std::optional<int> depth = {}) {
  const auto wrong = [&name](int line, const absl::Status& status) {
    return absl::InvalidArgumentError(absl::StrCat(name, ":", line, ": ", status.message()));
  };
  Stage stage(depth);
  std::string played;
  int number = 0;
  std::vector<std::string> lines = absl::StrSplit(text, '\n');
  if (lines.back().empty()) lines.pop_back();
  for (const std::string& line : lines) {
    ++number;
    if (absl::StartsWith(line, " ")) continue;  // what was written the last time
    absl::StrAppend(&played, line, "\n");
    Command command(line);
    if (command.empty() || absl::StartsWith(line, "#")) continue;
    const auto output = stage.Do(command);
    if (!output.ok()) return wrong(number, output.status());
    for (const std::string& told : *output) absl::StrAppend(&played, "    ", told, "\n");
  }
  if (auto status = stage.Close(); !status.ok()) return wrong(number, status);
  return played;
}

std::vector<std::string> Names() {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(kFolder, error)) {
    if (file.path().extension() == ".txt") names.push_back(file.path().stem());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string PathOf(const std::string& name) { return absl::StrCat(kFolder, "/", name, ".txt"); }

std::string Read(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class ScenarioTest : public testing::TestWithParam<std::string> {};

TEST_P(ScenarioTest, IsToldAsWritten) {
  const std::string path = PathOf(GetParam());
  const std::string written = Read(path);
  const auto played = PlayScenario(path, written);
  ASSERT_TRUE(played.ok()) << played.status().message();
  const char* const rewrite = std::getenv("CATSERVE_REWRITE_SCENARIOS");
  if (rewrite == nullptr || std::string(rewrite) != "1") {
    EXPECT_EQ(*played, written) << "if this is right, see CONTRIBUTING.md on rewriting";
  } else if (*played != written) {
    std::ofstream(path) << *played;
  }
}

// The same commands where every result comes a step later, or at once: it happens at other times,
// but everybody gets the tokens that he gets alone, and all memory comes back.
TEST_P(ScenarioTest, EndsAsWellWhateverIsInFlight) {
  const std::string path = PathOf(GetParam());
  for (const int depth : {0, 1}) {
    const auto played = PlayScenario(path, Read(path) + "run\n", depth);
    EXPECT_TRUE(played.ok()) << "depth " << depth << ": " << played.status().message();
  }
}

INSTANTIATE_TEST_SUITE_P(Stories, ScenarioTest, testing::ValuesIn(Names()),
                         [](const auto& info) { return info.param; });

TEST(Scenarios, AreThere) { EXPECT_GE(Names().size(), 20u) << "run from the root of the source"; }

TEST(Scenarios, WhatIsWrittenBelowACommandIsReplaced) {
  const auto played = PlayScenario("s",
                                   "# two\n"
                                   "arrive A prompt=5 max=2 chunk=4\n"
                                   "    something else\n"
                                   "step 2\n"
                                   "    1 never\n"
                                   "\n"
                                   "show\n");
  ASSERT_TRUE(played.ok()) << played.status();
  EXPECT_EQ(*played,
            "# two\n"
            "arrive A prompt=5 max=2 chunk=4\n"
            "step 2\n"
            "    1       4 rows, 1 chunk: A 4\n"
            "    1       A starts at C=4\n"
            "    2       1 row: A 1\n"
            "    2       A ends: length, 2 tokens, at most 1 page\n"
            "\n"
            "show\n"
            "    0 pages held, 1 kept idle, 63 free\n");
}

TEST(Scenarios, AMistakeIsNamedWithFileAndLine) {
  const struct {
    const char* text;
    const char* message;
  } mistakes[] = {
      {"stpe 3", "s:2: there is no command 'stpe'"},
      {"arrive A prompt=x max=1 chunk=4", "s:2: 'x' is no whole number for prompt"},
      {"arrive A prompt=4 max=1 chunk=5", "s:2: chunk_size 5 is not offered"},
      {"arrive A prompt=4 max=1 chnk=4", "s:2: 'arrive' has no option 'chnk'"},
      {"arrive A prompt=4 max=1 chunk=4 chunk=8", "s:2: 'chunk' is given twice"},
      {"arrive A prompt=4 max=1 chunk=4 n=9", "s:2: n 9 is out of range"},
      {"arrive A prompt=4 chunk=4", "s:2: max_tokens -1"},
      {"arrive A prompt=4 max=1 auto=8", "s:2: '' is no whole number for auto"},
      {"arrive A prompt=B+4 max=1 chunk=4", "s:2: there is no request 'B'"},
      {"arrive prompt=4 max=1 chunk=4", "s:2: 'arrive' needs a name"},
      {"cancel A", "s:2: there is no request 'A'"},
      {"step x", "s:2: 'x' is no whole number for step"},
      {"step 1 2", "s:2: 'step' does not know what to do with '2'"},
      {"wait", "s:2: 'wait' needs seconds"},
      {"limits slots=0", "s:3: slots 0 must be 1 or more"},
      {"arrive A prompt=4 max=1 chunk=4", "s:2: requests are left at the end"},
      {"arrive A prompt=4 max=1 chunk=4\nstep\nmodel dense", "s:4: 'model' must come before"},
  };
  for (const auto& mistake : mistakes) {
    std::string text = absl::StrCat("# a comment\n", mistake.text, "\n");
    if (absl::StartsWith(mistake.text, "limits")) absl::StrAppend(&text, "show\n");
    const auto played = PlayScenario("s", text);
    ASSERT_FALSE(played.ok()) << mistake.text;
    EXPECT_THAT(std::string(played.status().message()), HasSubstr(mistake.message));
  }
}

}  // namespace
}  // namespace catserve

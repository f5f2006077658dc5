// catctl: asks a running catserved.
#include <csignal>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "server/catctl/commands.h"
#include "server/catctl/flags.h"
#include "server/command_line.h"
#include "server/quiet.h"

namespace catserve {
namespace {

constexpr char kFolder[] = "server/catctl/";

constexpr char kHelp[] = R"(catctl asks a running catserved.

  catctl generate --chunk-size 8 "Once upon a time"    stream a text; also --auto, --seed, --stop
  catctl generate --prompt-file - --max-tokens 200     the prompt from stdin
  catctl model                                         what is served, and its dial
  catctl score --file f.txt --chunk-size 4,8,16        log-probability of a text, for each size
  catctl tokenize "Once upon a time"                   token ids
  catctl load                                          how busy the server is
  catctl plan --requests-per-second 20                 replicas and memory that a load needs
  catctl wait                                          until the server is ready
  catctl token --owner NAME --token_file FILE          a new token, and its entry for the server
  catctl help
  catctl --version

Exit code: 0 for success, 1 if the server refused, cut or could not be reached, 2 for a wrong
command line, 130 after Ctrl-C.

Flags (- and _ are the same; a text that starts with -- goes after a lone --):
)";

using Words = std::vector<std::string>;

struct Command {
  int (*run)(const Client&, const Words&);
  bool takes_words;
  int (*run_alone)() = nullptr;  // instead of `run`: asks no server
};

// The command that the first word names, or a line that says what is wrong.
absl::StatusOr<Command> FindCommand(const std::vector<std::string>& words) {
  static const std::map<std::string, Command> commands = {
      {"generate", {GenerateCommand, true}}, {"model", {ModelCommand, false}},
      {"score", {ScoreCommand, true}},       {"tokenize", {TokenizeCommand, true}},
      {"load", {LoadCommand, false}},        {"plan", {PlanCommand, false}},
      {"wait", {WaitCommand, false}},        {"token", {nullptr, false, TokenCommand}}};
  const auto command = words.empty() ? commands.end() : commands.find(words.front());
  if (command == commands.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        words.empty() ? "which command?" : absl::StrCat("there is no command ", words.front(), "."),
        " Use generate, model, score, tokenize, load, plan, wait, token or help."));
  }
  if (!command->second.takes_words && words.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(words.front(), " takes nothing after it, but got \"", words[1], "\""));
  }
  const double timeout = absl::GetFlag(FLAGS_timeout_seconds);
  if (!(timeout >= 0)) {
    return absl::InvalidArgumentError(absl::StrCat("--timeout_seconds=", timeout,
                                                   " is out of range; allowed: 0 (never) or more"));
  }
  return command->second;
}

int Run(const Command& command, const Words& words) {
  if (command.run_alone != nullptr) return command.run_alone();
  const absl::StatusOr<Client> client = Connect();
  if (!client.ok()) return FailUsage(client.status().message());
  return command.run(*client, words);
}

int Main(std::vector<std::string> args) {
  SilenceLibraries();
  WatchInterrupts();
  if (args == std::vector<std::string>{"--version"}) {
    std::printf("catctl %s\n", std::string(Version()).c_str());
    return kExitOk;
  }
  bool wants_help = false;
  for (std::string& arg : args) {
    if (arg == "--") break;
    if (arg == "--auto") arg = "--automatic";
    wants_help |= arg == "--help";
  }
  absl::StatusOr<std::vector<std::string>> words = ParseCommandLine(args, kFolder);
  wants_help |=
      words.ok() && !words->empty() && (words->front() == "help" || words->front() == "-h");
  if (wants_help) {
    std::printf("%s%s", kHelp, DescribeFlags(kFolder).c_str());
    return kExitOk;
  }
  if (!words.ok()) return FailUsage(words.status().message());
  const absl::StatusOr<Command> command = FindCommand(*words);
  if (!command.ok()) return FailUsage(command.status().message());
  words->erase(words->begin());
  const int code = Run(*command, *words);
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    std::fputs("catctl: cannot write the output; is the disk full?\n", stderr);
    return code == kExitOk ? kExitError : code;
  }
  return code;
}

}  // namespace
}  // namespace catserve

int main(int argc, char** argv) {
  return catserve::Main(std::vector<std::string>(argv + 1, argv + argc));
}

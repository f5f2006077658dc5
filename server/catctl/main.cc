// catctl: asks a running catserved.
#include <csignal>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/catctl/commands.h"
#include "server/command_line.h"

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
  catctl wait                                          until the server is ready
  catctl help

Flags (- and _ are the same; a text that starts with -- goes after a lone --):
)";

int Main(std::vector<std::string> args) {
  WatchInterrupts();
  for (std::string& arg : args) {
    if (arg == "--") break;
    if (arg == "--auto") arg = "--automatic";
  }
  absl::StatusOr<std::vector<std::string>> words = ParseCommandLine(args, kFolder);
  const bool wants_help = !args.empty() && (args[0] == "help" || args[0] == "--help");
  if (wants_help) {
    std::printf("%s%s", kHelp, DescribeFlags(kFolder).c_str());
    return kExitOk;
  }
  if (!words.ok()) return FailUsage(words.status().message());
  using Command = int (*)(const Client&, const std::vector<std::string>&);
  const std::map<std::string, Command> commands = {
      {"generate", GenerateCommand}, {"model", ModelCommand}, {"score", ScoreCommand},
      {"tokenize", TokenizeCommand}, {"load", LoadCommand},   {"wait", WaitCommand}};
  const auto command = words->empty() ? commands.end() : commands.find(words->front());
  if (command == commands.end()) {
    return FailUsage(absl::StrCat(words->empty()
                                      ? "which command?"
                                      : absl::StrCat("there is no command ", words->front(), "."),
                                  " Use generate, model, score, tokenize, load, wait or help."));
  }
  words->erase(words->begin());
  const int code = command->second(Connect(), *words);
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

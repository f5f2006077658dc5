#include "server/command_line.h"

#include <algorithm>
#include <cstdint>
#include <map>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/types/optional.h"

namespace catserve {
namespace {

using FlagMap = std::map<std::string, absl::CommandLineFlag*>;

FlagMap FlagsOf(absl::string_view folder) {
  FlagMap flags;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (absl::StrContains(flag->Filename(), folder)) flags.emplace(std::string(name), flag);
  }
  return flags;
}

// Without a value until somebody gives one. An empty text would leave it so without a word, which
// is not what --quality_loss_max=$BOUND means where BOUND is not set.
bool IsOptional(const absl::CommandLineFlag& flag) {
  return flag.IsOfType<absl::optional<int32_t>>() || flag.IsOfType<absl::optional<int64_t>>() ||
         flag.IsOfType<absl::optional<uint64_t>>() || flag.IsOfType<absl::optional<double>>() ||
         flag.IsOfType<absl::optional<std::string>>();
}

// Set in the order of the command line, so that the last one wins, as usual.
struct Argument {
  absl::CommandLineFlag* flag = nullptr;
  std::string name;
  std::string value;
  bool has_value = false;
};

absl::StatusOr<Argument> ReadName(absl::string_view text, const FlagMap& flags) {
  Argument argument;
  const size_t equals = text.find('=');
  argument.has_value = equals != absl::string_view::npos;
  if (argument.has_value) argument.value = std::string(text.substr(equals + 1));
  argument.name = absl::StrReplaceAll(text.substr(0, equals), {{"-", "_"}});
  if (const auto it = flags.find(argument.name); it != flags.end()) {
    argument.flag = it->second;
    return argument;
  }
  if (absl::StartsWith(argument.name, "no") && !argument.has_value) {
    const auto it = flags.find(argument.name.substr(2));
    if (it != flags.end() && it->second->IsOfType<bool>()) {
      return Argument{it->second, it->first, "false", true};
    }
  }
  const std::string names = absl::StrJoin(flags, ", ", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, "--", entry.first);
  });
  return absl::InvalidArgumentError(
      absl::StrCat("there is no flag --", argument.name, "; use one of ", names));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseCommandLine(const std::vector<std::string>& args,
                                                          absl::string_view folder) {
  const FlagMap flags = FlagsOf(folder);
  std::vector<std::string> others;
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--") {
      others.insert(others.end(), args.begin() + i + 1, args.end());
      break;
    }
    if (!absl::StartsWith(args[i], "--")) {
      others.push_back(args[i]);
      continue;
    }
    absl::StatusOr<Argument> argument = ReadName(absl::string_view(args[i]).substr(2), flags);
    if (!argument.ok()) return argument.status();
    if (!argument->has_value && argument->flag->IsOfType<bool>()) {
      argument->value = "true";
    } else if (!argument->has_value) {
      if (i + 1 == args.size()) {
        return absl::InvalidArgumentError(
            absl::StrCat("--", argument->name, " needs a value: write --", argument->name, "=..."));
      }
      argument->value = args[++i];
    }
    if (argument->value.empty() && IsOptional(*argument->flag)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--", argument->name, " has an empty value: give one, or leave the flag away"));
    }
    std::string error;
    if (!argument->flag->ParseFrom(argument->value, &error)) {
      return absl::InvalidArgumentError(absl::StrCat("--", argument->name, "=", argument->value,
                                                     " cannot be read: ", error, " (",
                                                     argument->flag->Help(), ")"));
    }
  }
  return others;
}

absl::string_view Version() { return CATSERVE_VERSION; }

std::string DescribeFlags(absl::string_view folder) {
  std::string text;
  for (const auto& [name, flag] : FlagsOf(folder)) {
    absl::StrAppend(&text, "  --", name, " (default ", flag->DefaultValue(), ")\n      ",
                    flag->Help(), "\n");
  }
  return text;
}

}  // namespace catserve

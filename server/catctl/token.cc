// catctl token: a new token for a caller, and its entry for the server's file.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/flags/flag.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "server/catctl/commands.h"
#include "server/catctl/flags.h"
#include "server/config/tokens_file.h"
#include "server/secret.h"

namespace catserve {
namespace {

// A new file that only its user may read. The reason if it cannot be written; empty: it is.
std::string WriteSecret(const std::string& path, const std::string& text) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return strerror(errno);
  const bool written = write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  std::string error = written ? "" : strerror(errno);
  if (close(file) != 0 && written) return strerror(errno);
  return error;
}

}  // namespace

int TokenCommand() {
  const std::string owner = absl::GetFlag(FLAGS_owner);
  const std::string path = absl::GetFlag(FLAGS_token_file);
  if (!IsOwnerName(owner)) {
    return FailUsage(absl::StrCat("--owner=", owner, " is no name; allowed: ", kOwnerNameRule));
  }
  if (path.empty()) {
    return FailUsage("token needs --token_file=FILE: where the new token is written");
  }
  const absl::StatusOr<std::string> token = MakeToken();
  if (!token.ok()) return FailUsage(token.status().message());
  std::string entry = absl::StrCat("- owner: \"", owner,  // quoted: - and null are names, too
                                   "\"\n  sha256: ", absl::BytesToHexString(Sha256(*token)), "\n");
  if (const auto max = absl::GetFlag(FLAGS_requests_max)) {
    absl::StrAppend(&entry, "  requests_max: ", *max, "\n");
  }
  if (const auto max = absl::GetFlag(FLAGS_tokens_per_minute_max)) {
    absl::StrAppend(&entry, "  tokens_per_minute_max: ", *max, "\n");
  }
  if (const auto read = ParseTokens(entry, "the entry"); !read.ok()) {
    return FailUsage(read.status().message());
  }
  if (const std::string error = WriteSecret(path, *token + "\n"); !error.empty()) {
    return FailUsage(
        absl::StrCat("--token_file=", path, " cannot be written as a new file: ", error));
  }
  if (std::fputs(entry.c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return kExitOk;
  unlink(path.c_str());  // nobody can use a token without its entry
  std::fprintf(stderr, "catctl: the entry is lost, so %s is removed again\n", path.c_str());
  return kExitError;  // the program says why
}

}  // namespace catserve

#include "server/log.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace catserve {
namespace {

int log_descriptor = STDERR_FILENO;  // set before there are threads

bool IsPlain(absl::string_view value) {
  return !value.empty() && std::all_of(value.begin(), value.end(), [](char c) {
    return absl::ascii_isgraph(c) && c != '"' && c != '=' && c != '\\';
  });
}

void Write(absl::string_view severity, absl::string_view event,
           std::initializer_list<LogField> fields) {
  const std::string time =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  const std::string line =
      absl::StrCat("time=", time, " ", FormatLogLine(severity, event, fields), "\n");
  // A pipe that nobody reads must not stop who logs: one that is ready takes a line without
  // waiting.
  pollfd ready{.fd = log_descriptor, .events = POLLOUT, .revents = 0};
  if (::poll(&ready, 1, /*timeout=*/0) != 1) return;
  // One call, so that lines of several threads do not mix. A log that cannot be written is lost.
  [[maybe_unused]] const ssize_t written = ::write(log_descriptor, line.data(), line.size());
}

}  // namespace

std::string FormatLogLine(absl::string_view severity, absl::string_view event,
                          std::initializer_list<LogField> fields) {
  std::string line = absl::StrCat("level=", severity, " event=", event);
  for (const LogField& field : fields) {
    absl::StrAppend(&line, " ", field.key, "=");
    if (IsPlain(field.value)) {
      line += field.value;
    } else {
      absl::StrAppend(&line, "\"", absl::Utf8SafeCEscape(field.value), "\"");
    }
  }
  return line;
}

void PrepareLog() {
  std::signal(SIGPIPE, SIG_IGN);
  int opened = 0;
  while (opened >= 0 && opened <= STDERR_FILENO) opened = ::open("/dev/null", O_RDWR);
  if (opened > STDERR_FILENO) ::close(opened);
  // A library was quicker: what the process was started with has no such mark.
  if ((::fcntl(STDERR_FILENO, F_GETFD) & FD_CLOEXEC) != 0) {
    log_descriptor = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  }
}

void LogInfo(absl::string_view event, std::initializer_list<LogField> fields) {
  Write("info", event, fields);
}
void LogWarning(absl::string_view event, std::initializer_list<LogField> fields) {
  Write("warning", event, fields);
}
void LogError(absl::string_view event, std::initializer_list<LogField> fields) {
  Write("error", event, fields);
}

}  // namespace catserve

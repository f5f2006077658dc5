// One line per event on stderr: time, severity, event, then key=value pairs that a script can read.
//
//   LogInfo("model_loaded", {{"name", name}, {"seconds", 1.5}});
//
// Prompts and generated text are never logged. Values that hold spaces, quotes or control
// characters are quoted and escaped, so that no value can forge a line.
#pragma once

#include <initializer_list>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace catserve {

struct LogField {
  LogField(absl::string_view key, absl::string_view text) : key(key), value(text) {}
  LogField(absl::string_view key, const char* text) : key(key), value(text) {}
  LogField(absl::string_view key, const std::string& text) : key(key), value(text) {}
  LogField(absl::string_view key, const absl::AlphaNum& number) : key(key), value(number.Piece()) {}

  absl::string_view key;
  std::string value;
};

// Thread-safe; a line is written whole, or not at all where nobody takes it at once.
void LogInfo(absl::string_view event, std::initializer_list<LogField> fields = {});
void LogWarning(absl::string_view event, std::initializer_list<LogField> fields = {});
void LogError(absl::string_view event, std::initializer_list<LogField> fields = {});

// To be called before anything is opened or written: a standard stream that the process was started
// without becomes /dev/null (else the next file or connection gets its number, and log lines), and
// writing to a reader that is gone is an error, not a signal that ends the process.
void PrepareLog();

// The text of a line without its time and newline.
std::string FormatLogLine(absl::string_view severity, absl::string_view event,
                          std::initializer_list<LogField> fields);

}  // namespace catserve

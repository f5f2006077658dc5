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

// Thread-safe; a line is written whole.
void LogInfo(absl::string_view event, std::initializer_list<LogField> fields = {});
void LogWarning(absl::string_view event, std::initializer_list<LogField> fields = {});
void LogError(absl::string_view event, std::initializer_list<LogField> fields = {});

// The text of a line without its time and newline.
std::string FormatLogLine(absl::string_view severity, absl::string_view event,
                          std::initializer_list<LogField> fields);

}  // namespace catserve

// One line of a scenario: a verb, names, and options `key=value`.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace catserve {

// Keeps the first error of all that is asked of it; what is missing or wrong reads as its fallback
// until Finish tells. Not thread-safe.
class Command {
 public:
  explicit Command(const std::string& line);

  const std::string& verb() const { return verb_; }
  bool empty() const { return verb_.empty(); }

  // The next word that is no option; `what` it should be if there is none.
  std::string Word(const std::string& what);
  std::optional<int64_t> WholeNumber();  // the next word, if there is one
  std::optional<std::string> Text(const std::string& key);
  int64_t Number(const std::string& key, int64_t fallback);
  double Fraction(const std::string& key, double fallback);
  bool Flag(const std::string& word);  // an option without a value

  int64_t ToNumber(absl::string_view text, const std::string& what);
  double ToFraction(absl::string_view text, const std::string& what);
  void Fail(const std::string& message);  // the first one counts

  // OK if all was asked for and right.
  absl::Status Finish() const;

 private:
  std::string verb_;
  std::vector<std::string> words_;
  size_t next_word_ = 0;
  std::map<std::string, std::string> options_;
  absl::Status error_;
};

}  // namespace catserve

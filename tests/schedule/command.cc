#include "tests/schedule/command.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace catserve {

Command::Command(const std::string& line) {
  std::vector<std::string> parts =
      absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
  if (parts.empty()) return;
  verb_ = parts.front();
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::pair<std::string, std::string> option =
        absl::StrSplit(parts[i], absl::MaxSplits('=', 1));
    if (option.first == parts[i]) {
      words_.push_back(parts[i]);
    } else if (!options_.insert(option).second) {
      Fail(absl::StrCat("'", option.first, "' is given twice"));
    }
  }
}

void Command::Fail(const std::string& message) {
  error_.Update(absl::InvalidArgumentError(message));
}

std::string Command::Word(const std::string& what) {
  if (next_word_ < words_.size()) return words_[next_word_++];
  Fail(absl::StrCat("'", verb_, "' needs ", what));
  return "";
}

std::optional<int64_t> Command::WholeNumber() {
  if (next_word_ == words_.size()) return std::nullopt;
  return ToNumber(words_[next_word_++], verb_);
}

std::optional<std::string> Command::Text(const std::string& key) {
  const auto found = options_.extract(key);
  if (found.empty()) return std::nullopt;
  return found.mapped();
}

int64_t Command::Number(const std::string& key, int64_t fallback) {
  const auto text = Text(key);
  return text ? ToNumber(*text, key) : fallback;
}

double Command::Fraction(const std::string& key, double fallback) {
  const auto text = Text(key);
  return text ? ToFraction(*text, key) : fallback;
}

bool Command::Flag(const std::string& word) {
  const auto found =
      std::find(words_.begin() + static_cast<int64_t>(next_word_), words_.end(), word);
  if (found == words_.end()) return false;
  words_.erase(found);
  return true;
}

int64_t Command::ToNumber(absl::string_view text, const std::string& what) {
  int64_t number = 0;
  if (!absl::SimpleAtoi(text, &number)) {
    Fail(absl::StrCat("'", text, "' is no whole number for ", what));
  }
  return number;
}

double Command::ToFraction(absl::string_view text, const std::string& what) {
  double number = 0;
  if (!absl::SimpleAtod(text, &number)) Fail(absl::StrCat("'", text, "' is no number for ", what));
  return number;
}

absl::Status Command::Finish() const {
  if (!error_.ok()) return error_;
  if (next_word_ < words_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", verb_, "' does not know what to do with '", words_[next_word_], "'"));
  }
  if (options_.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("'", verb_, "' has no option '", options_.begin()->first, "'"));
}

}  // namespace catserve

#include "engine/text/split_pattern.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "engine/text/message.h"
#include "engine/text/utf8.h"

namespace catserve {
namespace {

// Unicode's general categories, the properties whose names and contents both libraries share.
constexpr std::string_view kCategories =
    " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp "
    "C Cc Cf Co Cn ";

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    if (pattern_.size() > kSplitPatternBytesMax) {
      return absl::InvalidArgumentError(
          Message("pattern of ", pattern_.size(), " bytes; at most ", kSplitPatternBytesMax));
    }
    if (FirstInvalidUtf8(pattern_)) return absl::InvalidArgumentError("pattern is not UTF-8");
    while (error_.ok() && at_ < pattern_.size()) ReadTerm();
    if (!error_.ok()) return error_;
    return out_;
  }

 private:
  std::string_view Rest() const { return pattern_.substr(at_); }
  bool Next(char c) const { return Rest().starts_with(c); }
  bool InCaseless() const { return !caseless_.empty() && caseless_.back(); }
  void Copy(size_t length) {
    out_ += Rest().substr(0, length);
    at_ += length;
  }
  void Refuse(std::string_view what) {
    if (!error_.ok()) return;
    error_ =
        absl::UnimplementedError(Message("pattern: ", what, " at byte ", at_, " is not supported"));
  }

  void ReadTerm() {
    switch (pattern_[at_]) {
      case '\\': ReadEscape(); return;
      case '[': return ReadClass();
      case '(': return ReadGroup();
      case ')':
        if (!caseless_.empty()) caseless_.pop_back();
        return Copy(1);
      case '{': return ReadCount();
      case '^':
      case '$':
      case '.':
      case '}':
      case ']': return Refuse(Message("a bare ", Rest().substr(0, 1)));
      default: Copy(1);
    }
  }

  void ReadGroup() {
    for (const std::string_view open : {"(?:", "(?i:", "(?=", "(?!"}) {
      if (!Rest().starts_with(open)) continue;
      caseless_.push_back(InCaseless() || open == "(?i:");
      return Copy(open.size());
    }
    if (Rest().starts_with("(?") || Rest().starts_with("(*")) return Refuse("this group");
    caseless_.push_back(InCaseless());
    Copy(1);
  }

  // {n}, {n,} or {n,m}. Ruby reads a ? or + after it as one more quantifier, PCRE2 as a modifier.
  void ReadCount() {
    size_t end = 1;
    size_t commas = 0;
    for (; end < Rest().size() && Rest()[end] != '}'; ++end) {
      const char c = Rest()[end];
      const bool comma = c == ',' && end > 1 && ++commas == 1;
      if (!comma && !absl::ascii_isdigit(c)) return Refuse("this {");
    }
    if (end == Rest().size() || end == 1) return Refuse("this {");
    Copy(end + 1);
    if (Next('?') || Next('+') || Next('*')) Refuse("a quantifier after {}");
  }

  // Returns whether the escape stands for a set of characters.
  bool ReadEscape() {
    const char kind = Rest().size() < 2 ? '\0' : Rest()[1];
    switch (kind) {
      case 's':
      case 'S':
        out_ += kind == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
        at_ += 2;
        return true;
      case 'd':
      case 'D': Copy(2); return true;
      case 'p':
      case 'P': ReadProperty(); return true;
      case 'r':
      case 'n':
      case 't': Copy(2); return false;
      default:
        if (!absl::ascii_ispunct(kind)) {
          Refuse("this escape");
        } else {
          Copy(2);
        }
        return false;
    }
  }

  void ReadProperty() {
    if (InCaseless()) return Refuse("a property in (?i:)");  // PCRE2 takes Lu for any case there
    const size_t close = Rest().find('}');
    if (Rest().size() < 4 || Rest()[2] != '{' || close == std::string_view::npos) {
      return Refuse("this property");
    }
    const std::string_view name = Rest().substr(3, close - 3);
    const bool simple = !name.empty() && name.find(' ') == std::string_view::npos;
    if (!simple || kCategories.find(Message(" ", name, " ")) == std::string_view::npos) {
      return Refuse("this property");
    }
    Copy(close + 1);
  }

  void ReadClass() {
    Copy(1);
    if (Next('^')) Copy(1);
    if (Next(']')) return Refuse("] first in a class");
    while (error_.ok() && at_ < pattern_.size() && !Next(']')) {
      if (Next('[')) return Refuse("[ in a class");
      if (Rest().starts_with("&&")) return Refuse("&& in a class");
      bool set = false;
      if (Next('\\')) {
        set = ReadEscape();
      } else {
        Copy(1);
      }
      const bool range = Next('-') && Rest().size() > 1 && Rest()[1] != ']';
      if (set && range) return Refuse("a range that begins with a set");
    }
    if (!error_.ok()) return;
    if (!Next(']')) return Refuse("an open class");
    Copy(1);
  }

  std::string_view pattern_;
  size_t at_ = 0;
  std::string out_;
  std::vector<bool> caseless_;  // of the open groups
  absl::Status error_;
};

}  // namespace

absl::StatusOr<std::string> TranslateSplitPattern(std::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace catserve

#include "server/config/yaml_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <sstream>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "yaml-cpp/eventhandler.h"
#include "yaml-cpp/exceptions.h"
#include "yaml-cpp/parser.h"

namespace catserve {
namespace {

constexpr size_t kQuoteBytesMax = 64;

int Line(const YAML::Mark& mark) { return std::max(mark.line, 0) + 1; }

// Builds the tree from the parser's events, so that nothing is expanded or nested before it is
// checked. Throws YAML::ParserException, as the parser itself does.
class Builder final : public YAML::EventHandler {
 public:
  explicit Builder(size_t depth_max) : depth_max_(depth_max) {}

  YamlNode Take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { Place(mark, YamlNode()); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { RefuseAnchors(mark); }
  void OnAnchor(const YAML::Mark& mark, const std::string&) override { RefuseAnchors(mark); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                const std::string& value) override {
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.text = value;
    node.quoted = tag == "!";  // the parser's word for it
    if (!node.quoted) CheckTag(mark, tag);
    Place(mark, std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    Open(mark, tag, YamlNode::Kind::kList);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    Open(mark, tag, YamlNode::Kind::kMap);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Frame {
    YAML::Mark mark;
    YamlNode node;
    bool has_key = false;
    YamlNode key;
    std::set<std::string> keys;
  };

  [[noreturn]] static void RefuseAnchors(const YAML::Mark& mark) {
    throw YAML::ParserException(mark, "anchors and aliases are not allowed: write values out");
  }
  static void CheckTag(const YAML::Mark& mark, const std::string& tag) {
    if (tag.empty() || tag == "?") return;
    throw YAML::ParserException(mark, "tags are not allowed: write plain values");
  }

  void Open(const YAML::Mark& mark, const std::string& tag, YamlNode::Kind kind) {
    if (tag != "!") CheckTag(mark, tag);
    if (open_.size() >= depth_max_) {
      throw YAML::ParserException(
          mark, absl::StrCat("nested too deeply; allowed: ", depth_max_, " levels"));
    }
    Frame& frame = open_.emplace_back();
    frame.mark = mark;
    frame.node.kind = kind;
  }

  void Close() {
    const Frame frame = std::move(open_.back());
    open_.pop_back();
    Place(frame.mark, frame.node);
  }

  void Place(const YAML::Mark& mark, YamlNode node) {
    node.line = Line(mark);
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = open_.back();
    if (frame.node.kind == YamlNode::Kind::kMap) {
      if (!frame.has_key) {
        TakeKey(mark, std::move(node));
        return;
      }
      node.key = frame.key.text;
      node.line = frame.key.line;
      frame.has_key = false;
    }
    frame.node.items.push_back(std::move(node));
  }

  void TakeKey(const YAML::Mark& mark, YamlNode key) {
    Frame& frame = open_.back();
    if (key.kind != YamlNode::Kind::kScalar) throw YAML::ParserException(mark, "a key is a word");
    if (!frame.keys.insert(key.text).second) {
      throw YAML::ParserException(mark, absl::StrCat(Quote(key.text), ": given twice; keep one"));
    }
    frame.key = std::move(key);
    frame.has_key = true;
  }

  const size_t depth_max_;
  std::vector<Frame> open_;
  YamlNode root_;
};

}  // namespace

std::string Quote(absl::string_view text) {
  const bool cut = text.size() > kQuoteBytesMax;
  return absl::StrCat(absl::CHexEscape(text.substr(0, kQuoteBytesMax)), cut ? "..." : "");
}

absl::StatusOr<YamlNode> ParseYaml(absl::string_view text, const std::string& name,
                                   const YamlLimits& limits) {
  if (text.size() > limits.bytes_max) {
    return FileError(name, 1, "the file has ", text.size(), " bytes; allowed: at most ",
                     limits.bytes_max);
  }
  if (const size_t nul = text.find('\0'); nul != absl::string_view::npos) {
    return FileError(name, std::count(text.begin(), text.begin() + nul, '\n') + 1,
                     "a zero byte: is this a YAML file?");
  }
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    Builder builder(limits.depth_max);
    parser.HandleNextDocument(builder);
    YamlNode root = builder.Take();
    Builder second(limits.depth_max);
    if (parser.HandleNextDocument(second)) {
      return FileError(name, second.Take().line, "a second document; allowed: one");
    }
    return root;
  } catch (const YAML::Exception& error) {
    return FileError(name, Line(error.mark), error.msg);
  }
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t bytes_max) {
  const auto unreadable = [&path](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(path, " cannot be read: ", why));
  };
  const auto failed = [&unreadable] {
    return unreadable(absl::StrCat(std::generic_category().message(errno),
                                   "; is it a file, and may this user read it?"));
  };
  // Opening a pipe would otherwise wait until somebody writes to it.
  const int file = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) return failed();
  const absl::Cleanup closer = [file] { close(file); };
  struct stat info {};
  if (fstat(file, &info) != 0) return failed();
  if (!S_ISREG(info.st_mode)) return unreadable("no regular file; a pipe or a folder will not do");
  std::string text(bytes_max + 1, '\0');
  size_t size = 0;
  for (ssize_t count = 1; count > 0 && size < text.size(); size += static_cast<size_t>(count)) {
    count = read(file, text.data() + size, text.size() - size);
    if (count < 0) return failed();
  }
  text.resize(size);
  if (text.size() > bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is too large; allowed: at most ", bytes_max, " bytes"));
  }
  return text;
}

}  // namespace catserve

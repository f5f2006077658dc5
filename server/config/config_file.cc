#include "server/config/config_file.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/config/address.h"
#include "server/config/yaml_file.h"

namespace catserve {
namespace {

constexpr size_t kDepthMax = 4;  // two are used; a list too many is told by its key
constexpr size_t kTextBytesMax = 4096;

using Field = ConfigKey::Field;

constexpr ConfigKey kKeys[] = {
    {"tls.certificate_file", [](ServerConfig& c) -> Field { return &c.tls.certificate_file; }},
    {"tls.key_file", [](ServerConfig& c) -> Field { return &c.tls.key_file; }},
    {"tls.client_ca_file", [](ServerConfig& c) -> Field { return &c.tls.client_ca_file; }},
    {"access.tokens_file", [](ServerConfig& c) -> Field { return &c.tokens_file; }},
    {"plaintext_allowed", [](ServerConfig& c) -> Field { return &c.plaintext_allowed; }},
    {"connections.count_max", [](ServerConfig& c) -> Field { return &c.connections.count_max; }, 1,
     100'000},
    {"connections.streams_max", [](ServerConfig& c) -> Field { return &c.connections.streams_max; },
     1, 100'000},
    {"connections.metadata_bytes_max",
     [](ServerConfig& c) -> Field { return &c.connections.metadata_bytes_max; }, 1024, 1 << 20},
    {"connections.handshake_seconds",
     [](ServerConfig& c) -> Field { return &c.connections.handshake; }, 1, 300},
    {"connections.age_max_seconds", [](ServerConfig& c) -> Field { return &c.connections.age_max; },
     0, 604'800},
    {"connections.age_grace_seconds",
     [](ServerConfig& c) -> Field { return &c.connections.age_grace; }, 0, 86'400},
    {"connections.idle_max_seconds",
     [](ServerConfig& c) -> Field { return &c.connections.idle_max; }, 0, 86'400},
    {"connections.keepalive_timeout_seconds",
     [](ServerConfig& c) -> Field { return &c.connections.keepalive_timeout; }, 1, 300},
    {"connections.client_pings_min_seconds",
     [](ServerConfig& c) -> Field { return &c.connections.client_pings_min; }, 1, 3600},
    {"health.address", [](ServerConfig& c) -> Field { return &c.health_address; }},
    {"readers.lag_tokens_max", [](ServerConfig& c) -> Field { return &c.readers.lag_tokens_max; },
     1, 1'000'000},
    {"readers.stall_seconds", [](ServerConfig& c) -> Field { return &c.readers.stall; }, 1, 86'400},
    {"logging.requests", [](ServerConfig& c) -> Field { return &c.log_requests; }},
    {"reload_seconds", [](ServerConfig& c) -> Field { return &c.reload; }, 0.1, 3600},
};

// 1000000, not 1e+06.
std::string Plain(double number) {
  if (number == std::trunc(number)) return absl::StrCat(static_cast<int64_t>(number));
  return absl::StrCat(number);
}

// Reads one scalar into its field; what is wrong otherwise.
class Setter {
 public:
  Setter(const ConfigKey& key, const YamlNode& node, const std::filesystem::path& folder)
      : key_(key), node_(node), folder_(folder) {}

  absl::Status operator()(bool* field) const {
    if (node_.quoted || (node_.text != "true" && node_.text != "false")) {
      return Refuse(" is not true or false");
    }
    *field = node_.text == "true";
    return absl::OkStatus();
  }
  absl::Status operator()(int32_t* field) const {
    int64_t number = 0;
    if (node_.quoted || !absl::SimpleAtoi(node_.text, &number)) {
      return Refuse(" is no whole number; ", Allowed());
    }
    if (absl::Status range = CheckRange(static_cast<double>(number)); !range.ok()) return range;
    *field = static_cast<int32_t>(number);
    return absl::OkStatus();
  }
  absl::Status operator()(absl::Duration* field) const {
    double seconds = 0;
    if (node_.quoted || !absl::SimpleAtod(node_.text, &seconds)) {
      return Refuse(" is no number of seconds; ", Allowed());
    }
    if (absl::Status range = CheckRange(seconds); !range.ok()) return range;
    *field = absl::Seconds(seconds);
    return absl::OkStatus();
  }
  absl::Status operator()(std::string* field) const {
    const std::string& text = node_.text;
    if (text.empty() || text.size() > kTextBytesMax ||
        std::any_of(text.begin(), text.end(), absl::ascii_iscntrl)) {
      return Refuse(" is not allowed; allowed: 1 to ", kTextBytesMax,
                    " bytes without control characters");
    }
    if (absl::EndsWith(key_.name, "_file")) {
      *field = (folder_ / text).string();
      return absl::OkStatus();
    }
    const absl::StatusOr<Address> address = ReadAddress(text);
    if (!address.ok()) return Refuse(" ", address.status().message());
    *field = text;
    return absl::OkStatus();
  }

 private:
  // NaN is never in range.
  absl::Status CheckRange(double number) const {
    if (number >= key_.low && number <= key_.high) return absl::OkStatus();
    return Refuse(" is out of range; ", Allowed());
  }
  std::string Allowed() const {
    return absl::StrCat("allowed: ", Plain(key_.low), " to ", Plain(key_.high));
  }
  template <typename... What>
  absl::Status Refuse(const What&... what) const {
    return absl::InvalidArgumentError(absl::StrCat(Quote(node_.text), what...));
  }

  const ConfigKey& key_;
  const YamlNode& node_;
  const std::filesystem::path& folder_;
};

class Reader {
 public:
  Reader(const std::string& name, ServerConfig& config)
      : name_(name), folder_(std::filesystem::path(name).parent_path()), config_(config) {}

  // The keys of a group, whose name and a dot are the prefix, or of the file, without one.
  absl::Status ReadGroup(const YamlNode& node, const std::string& prefix) {
    if (node.kind == YamlNode::Kind::kNull) return absl::OkStatus();  // all commented out
    if (node.kind != YamlNode::Kind::kMap) {
      return FileError(name_, node.line, prefix.empty() ? "" : absl::StrCat(node.key, ": "),
                       "keys are expected here; allowed: ", absl::StrJoin(Names(prefix), ", "));
    }
    for (const YamlNode& item : node.items) {
      if (absl::Status status = ReadItem(item, prefix); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status ReadItem(const YamlNode& item, const std::string& prefix) {
    const std::string path = absl::StrCat(prefix, item.key);
    for (const ConfigKey& key : kKeys) {
      if (key.name == path) return ReadValue(key, item);
    }
    const std::string group = absl::StrCat(path, ".");
    if (!Names(group).empty()) return ReadGroup(item, group);
    return FileError(name_, item.line, Quote(path),
                     ": there is no such key; allowed: ", absl::StrJoin(Names(prefix), ", "));
  }

  absl::Status ReadValue(const ConfigKey& key, const YamlNode& node) {
    if (node.kind != YamlNode::Kind::kScalar) {
      return FileError(name_, node.line, key.name, ": one value is expected");
    }
    absl::Status status = std::visit(Setter(key, node, folder_), key.field(config_));
    if (status.ok()) return status;
    return FileError(name_, node.line, key.name, ": ", status.message());
  }

  // What may follow the prefix, groups by their first word.
  static std::vector<std::string> Names(absl::string_view prefix) {
    std::vector<std::string> names;
    for (const ConfigKey& key : kKeys) {
      if (!absl::StartsWith(key.name, prefix)) continue;
      const absl::string_view rest = key.name.substr(prefix.size());
      const std::string name(rest.substr(0, rest.find('.')));
      if (names.empty() || names.back() != name) names.push_back(name);
    }
    return names;
  }

  const std::string& name_;
  const std::filesystem::path folder_;
  ServerConfig& config_;
};

// What no single key can tell: each of `tls` needs the first two.
absl::Status CheckTogether(const YamlNode& root, const std::string& name) {
  for (const YamlNode& group : root.items) {
    if (group.key != "tls") continue;
    for (const YamlNode& given : group.items) {
      for (const char* needed : {"certificate_file", "key_file"}) {
        const auto is_needed = [needed](const YamlNode& node) { return node.key == needed; };
        if (std::any_of(group.items.begin(), group.items.end(), is_needed)) continue;
        return FileError(name, given.line, "tls.", given.key, ": given without tls.", needed,
                         "; name that too, or none of `tls`");
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::span<const ConfigKey> ConfigKeys() { return kKeys; }

absl::StatusOr<ServerConfig> ParseServerConfig(absl::string_view text, const std::string& name) {
  const absl::StatusOr<YamlNode> root = ParseYaml(text, name, {kServerConfigBytesMax, kDepthMax});
  if (!root.ok()) return root.status();
  ServerConfig config;
  if (auto status = Reader(name, config).ReadGroup(*root, ""); !status.ok()) return status;
  if (auto status = CheckTogether(*root, name); !status.ok()) return status;
  return config;
}

absl::StatusOr<ServerConfig> LoadServerConfig(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSmallFile(path, kServerConfigBytesMax);
  if (!text.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--config=", text.status().message()));
  }
  return ParseServerConfig(*text, path);
}

}  // namespace catserve

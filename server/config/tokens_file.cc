#include "server/config/tokens_file.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/config/yaml_file.h"

namespace catserve {
namespace {

constexpr size_t kDepthMax = 4;  // a list of maps is two; one too many is told by its key
constexpr size_t kOwnerBytesMax = 64;
constexpr size_t kHexDigits = 64;

absl::Status ReadNumber(const YamlNode& node, int64_t max, int64_t& number) {
  if (!node.quoted && absl::SimpleAtoi(node.text, &number) && number >= 1 && number <= max) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(Quote(node.text), " is out of range; allowed: whole numbers from 1 to ", max,
                   ", or no such key for no limit"));
}

absl::Status ReadHash(const YamlNode& node, std::string& hash) {
  if (node.text.size() == kHexDigits &&
      std::all_of(node.text.begin(), node.text.end(), absl::ascii_isxdigit)) {
    hash = absl::HexStringToBytes(node.text);
    return absl::OkStatus();
  }
  // Not told: it may be a token that somebody put here.
  return absl::InvalidArgumentError(
      "is no hash; allowed: 64 hexadecimal digits, as `catctl token` prints them");
}

absl::Status ReadValue(const YamlNode& node, TokenEntry& entry) {
  if (node.key == "owner") {
    entry.owner = node.text;
    if (IsOwnerName(node.text)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(Quote(node.text), " is no owner's name; allowed: ", kOwnerNameRule));
  }
  if (node.key == "sha256") return ReadHash(node, entry.sha256);
  if (node.key == "requests_max") {
    return ReadNumber(node, kOwnerRequestsMax, entry.limits.requests_max);
  }
  if (node.key == "tokens_per_minute_max") {
    return ReadNumber(node, kOwnerTokensPerMinuteMax, entry.limits.tokens_per_minute_max);
  }
  return absl::InvalidArgumentError(
      "there is no such key; allowed: owner, sha256, requests_max, tokens_per_minute_max");
}

absl::StatusOr<TokenEntry> ReadEntry(const YamlNode& node, const std::string& name) {
  if (node.kind != YamlNode::Kind::kMap) {
    return FileError(name, node.line, "an entry is expected: `- owner: NAME` with its sha256");
  }
  TokenEntry entry;
  for (const YamlNode& item : node.items) {
    absl::Status status = item.kind == YamlNode::Kind::kScalar
                              ? ReadValue(item, entry)
                              : absl::InvalidArgumentError("one value is expected");
    if (!status.ok()) {
      return FileError(name, item.line, Quote(item.key), ": ", status.message());
    }
  }
  for (const auto& [key, value] :
       {std::pair("owner", &entry.owner), std::pair("sha256", &entry.sha256)}) {
    if (value->empty()) return FileError(name, node.line, key, ": missing in this entry");
  }
  return entry;
}

}  // namespace

bool IsOwnerName(absl::string_view name) {
  return !name.empty() && name.size() <= kOwnerBytesMax &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(c) ||
                  absl::string_view("._:@-").find(c) != absl::string_view::npos;
         });
}

absl::StatusOr<std::vector<TokenEntry>> ParseTokens(absl::string_view text,
                                                    const std::string& name) {
  const absl::StatusOr<YamlNode> root = ParseYaml(text, name, {kTokensBytesMax, kDepthMax});
  if (!root.ok()) return root.status();
  if (root->kind != YamlNode::Kind::kList) {
    return FileError(name, root->line,
                     "a list of tokens is expected: `catctl token --owner NAME --token_file FILE` "
                     "prints an entry; write [] for none");
  }
  std::vector<TokenEntry> entries;
  std::set<std::string> hashes;
  std::map<std::string, OwnerLimits> owners;
  for (const YamlNode& node : root->items) {
    absl::StatusOr<TokenEntry> entry = ReadEntry(node, name);
    if (!entry.ok()) return entry.status();
    if (!hashes.insert(entry->sha256).second) {
      return FileError(name, node.line, "sha256: this token is there twice; keep one entry");
    }
    const auto [owner, first] = owners.emplace(entry->owner, entry->limits);
    if (!first && !(owner->second == entry->limits)) {
      return FileError(name, node.line, entry->owner,
                       ": entries of one owner must have the same limits");
    }
    entries.push_back(*std::move(entry));
  }
  return entries;
}

}  // namespace catserve

#include "engine/text/added_tokens.h"

namespace catserve {
namespace {

uint64_t EdgeKey(int32_t node, char byte) {
  return uint64_t{static_cast<uint32_t>(node)} << 8 | static_cast<uint8_t>(byte);
}

}  // namespace

void AddedTokenMatcher::Add(std::string_view content, int32_t id) {
  starts_[static_cast<uint8_t>(content[0])] = true;
  int32_t node = 0;
  for (const char byte : content) {
    const auto fresh = static_cast<int32_t>(children_.size()) + 1;
    node = children_.try_emplace(EdgeKey(node, byte), fresh).first->second;
  }
  ids_.try_emplace(node, id);
}

AddedTokenMatcher::Match AddedTokenMatcher::LongestAt(std::string_view text) const {
  Match longest;
  if (!starts_[static_cast<uint8_t>(text[0])]) return longest;
  int32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto child = children_.find(EdgeKey(node, text[i]));
    if (child == children_.end()) break;
    node = child->second;
    const auto id = ids_.find(node);
    if (id != ids_.end()) longest = {.length = i + 1, .id = id->second};
  }
  return longest;
}

bool AddedTokenMatcher::Split(std::string_view text,
                              absl::FunctionRef<bool(std::string_view)> on_text,
                              absl::FunctionRef<void(int32_t)> on_token) const {
  size_t begin = 0;  // of the text not handed out yet
  for (size_t at = 0; at < text.size();) {
    const Match match = LongestAt(text.substr(at));
    if (match.length == 0) {
      ++at;
      continue;
    }
    if (at > begin && !on_text(text.substr(begin, at - begin))) return false;
    on_token(match.id);
    at += match.length;
    begin = at;
  }
  return begin == text.size() || on_text(text.substr(begin));
}

}  // namespace catserve

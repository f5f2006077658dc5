#include "engine/text/stop_strings.h"

#include <algorithm>
#include <utility>

namespace catserve {

bool StopMatcher::Pattern::Advance(char byte) {
  while (matched > 0 && text[matched] != byte) matched = fallback[matched - 1];
  if (text[matched] == byte) ++matched;
  return matched == text.size();
}

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : include_stop_(include_stop) {
  patterns_.reserve(stops.size());
  for (std::string& stop : stops) {
    Pattern pattern{.text = std::move(stop), .fallback = {}};
    const std::string& text = pattern.text;
    pattern.fallback.resize(text.size(), 0);
    for (size_t i = 1, border = 0; i < text.size(); ++i) {
      while (border > 0 && text[i] != text[border]) border = pattern.fallback[border - 1];
      if (text[i] == text[border]) ++border;
      pattern.fallback[i] = border;
    }
    patterns_.push_back(std::move(pattern));
  }
}

StopMatcher::Output StopMatcher::Push(std::string_view piece) {
  if (done_) return {};
  for (const char byte : piece) {
    held_ += byte;
    int winner = -1;
    for (size_t i = 0; i < patterns_.size(); ++i) {
      Pattern& pattern = patterns_[i];
      if (pattern.text.empty() || !pattern.Advance(byte)) continue;
      const bool longer = winner < 0 || pattern.text.size() > patterns_[winner].text.size();
      if (longer) winner = static_cast<int>(i);
    }
    if (winner >= 0) return Finish(winner);
  }
  // What no stop string could still use goes out: all before the longest one under way.
  size_t under_way = 0;
  for (const Pattern& pattern : patterns_) under_way = std::max(under_way, pattern.matched);
  const size_t certain = held_.size() - under_way;
  Output output{.text = held_.substr(0, certain)};
  held_.erase(0, certain);
  return output;
}

StopMatcher::Output StopMatcher::Finish(int winner) {
  done_ = true;
  Output output{.text = std::exchange(held_, {}), .matched = winner};
  if (!include_stop_) output.text.resize(output.text.size() - patterns_[winner].text.size());
  return output;
}

std::string StopMatcher::PushLiteral(std::string_view piece) {
  if (done_) return {};
  for (Pattern& pattern : patterns_) pattern.matched = 0;
  return std::exchange(held_, {}).append(piece);
}

std::string StopMatcher::Flush() { return PushLiteral({}); }

}  // namespace catserve

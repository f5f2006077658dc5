#include "engine/text/metaspace.h"

namespace catserve {
namespace {

std::string Replace(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at <= text.size();) {
    const size_t found = text.find(from, at);
    out += text.substr(at, found - at);
    if (found == std::string_view::npos) break;
    out += to;
    at = found + from.size();
  }
  return out;
}

}  // namespace

std::string SpacesToMetaspaces(std::string_view text) { return Replace(text, " ", kMetaspace); }

std::string MetaspacesToSpaces(std::string_view text) { return Replace(text, kMetaspace, " "); }

}  // namespace catserve

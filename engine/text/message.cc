#include "engine/text/message.h"

#include "absl/strings/escaping.h"

namespace catserve {

std::string Quoted(std::string_view text) {
  constexpr size_t kShown = 40;
  const std::string_view shown = text.substr(0, kShown);
  return Message('"', absl::CHexEscape({shown.data(), shown.size()}),
                 text.size() > kShown ? "...\"" : "\"");
}

}  // namespace catserve

// Error messages from parts. absl::StrCat does not take std::string_view where abseil was built for
// C++14, as on Debian 12.
#pragma once

#include <sstream>
#include <string>
#include <string_view>

namespace catserve {

// The parts, printed one after another.
template <typename... Parts>
std::string Message(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return std::move(out).str();
}

// `text` from a file or a user, fit for a message: escaped and cut short.
std::string Quoted(std::string_view text);

}  // namespace catserve

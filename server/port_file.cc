#include "server/port_file.h"

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace catserve {

absl::Status WritePortFile(const std::string& path, int port) {
  const std::string partial = absl::StrCat(path, ".partial");
  std::ofstream out(partial, std::ios::trunc);
  out << port << "\n";
  out.close();
  if (out && std::rename(partial.c_str(), path.c_str()) == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("--port_file=", path, " cannot be written: is its directory there?"));
}

}  // namespace catserve

// What an operator sets beyond flags: `catserved --config=FILE`. docs/operations.md says what each
// key means, server/config.schema.json is the same for editors; a test compares all three.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace catserve {

struct TlsConfig {  // paths; empty: none
  std::string certificate_file;
  std::string key_file;
  std::string client_ca_file;
};

struct ConnectionsConfig {
  int32_t count_max = 1024;
  int32_t streams_max = 1024;  // on one connection
  int32_t metadata_bytes_max = 16 << 10;
  absl::Duration handshake = absl::Seconds(10);
  absl::Duration age_max;    // zero: none, as the next two
  absl::Duration age_grace;  // for the calls of a connection that is too old
  absl::Duration idle_max;
  absl::Duration keepalive_timeout = absl::Seconds(20);
  absl::Duration client_pings_min = absl::Seconds(10);  // closer ones count as abuse
};

struct ReadersConfig {
  int32_t lag_tokens_max = 64;  // more, over all choices, pause a request
  absl::Duration stall = absl::Seconds(60);
};

struct ServerConfig {
  TlsConfig tls;
  std::string tokens_file;
  bool plaintext_allowed = false;
  ConnectionsConfig connections;
  std::string health_address;
  ReadersConfig readers;
  bool log_requests = false;
  absl::Duration reload = absl::Seconds(5);
};

// One key of the file: its name, the field it sets (the default is what a new ServerConfig has
// there), and for numbers what is allowed (of a Duration: in seconds).
struct ConfigKey {
  using Field = std::variant<bool*, int32_t*, absl::Duration*, std::string*>;
  absl::string_view name;  // "connections.count_max"
  Field (*field)(ServerConfig&);
  double low = 0;
  double high = 0;
};
std::span<const ConfigKey> ConfigKeys();

inline constexpr size_t kServerConfigBytesMax = 64 << 10;

// Paths in it start at the folder of the file called `name`. Errors: INVALID_ARGUMENT
// "NAME:LINE: key: what is wrong; allowed: ...".
absl::StatusOr<ServerConfig> ParseServerConfig(absl::string_view text, const std::string& name);

absl::StatusOr<ServerConfig> LoadServerConfig(const std::string& path);

}  // namespace catserve

#include "server/config/address.h"

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"

namespace catserve {

absl::StatusOr<Address> ReadAddress(absl::string_view text) {
  const size_t colon = text.rfind(':');
  Address address;
  if (colon != absl::string_view::npos && colon > 0 &&
      absl::SimpleAtoi(text.substr(colon + 1), &address.port) && address.port >= 0 &&
      address.port <= 65535) {
    absl::string_view host = text.substr(0, colon);
    if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
    address.host = std::string(host);
    if (!address.host.empty()) return address;
  }
  return absl::InvalidArgumentError(
      "is no address: write host:port with a port from 0 to 65535, for example 127.0.0.1:8500");
}

}  // namespace catserve

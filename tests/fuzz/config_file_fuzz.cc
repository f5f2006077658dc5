// Any text is either a configuration or a Status that names the file and one line; the same for
// tokens. What is accepted keeps the promises of config_file.h and tokens_file.h.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>

#include "absl/strings/match.h"
#include "server/config/address.h"
#include "server/config/config_file.h"
#include "server/config/tokens_file.h"

namespace {

using catserve::ConfigKey;

void Require(bool holds) {
  if (!holds) std::abort();
}

void CheckError(const absl::Status& status) {
  Require(absl::IsInvalidArgument(status) && absl::StartsWith(status.message(), "fuzz.yaml:") &&
          status.message().find('\n') == absl::string_view::npos);
}

struct InRange {
  const ConfigKey& key;
  void operator()(const bool*) const {}
  void operator()(const int32_t* field) const { Require(*field >= key.low && *field <= key.high); }
  void operator()(const absl::Duration* field) const {
    const double seconds = absl::ToDoubleSeconds(*field);
    Require(seconds >= key.low - 1e-9 && seconds <= key.high + 1e-9);
  }
  void operator()(const std::string* field) const {
    Require(field->find('\0') == std::string::npos);
  }
};

void CheckConfig(std::string_view text) {
  auto config = catserve::ParseServerConfig({text.data(), text.size()}, "fuzz.yaml");
  if (!config.ok()) return CheckError(config.status());
  for (const ConfigKey& key : catserve::ConfigKeys()) {
    std::visit(InRange{key}, key.field(*config));
  }
  const bool served = !config->tls.certificate_file.empty();
  Require(served == !config->tls.key_file.empty());
  Require(served || config->tls.client_ca_file.empty());
  Require(config->health_address.empty() || catserve::ReadAddress(config->health_address).ok());
}

void CheckTokens(std::string_view text) {
  const auto entries = catserve::ParseTokens({text.data(), text.size()}, "fuzz.yaml");
  if (!entries.ok()) return CheckError(entries.status());
  std::set<std::string> hashes;
  for (const catserve::TokenEntry& entry : *entries) {
    Require(catserve::IsOwnerName(entry.owner) && entry.sha256.size() == 32);
    Require(entry.limits.requests_max >= 0 && entry.limits.tokens_per_minute_max >= 0);
    Require(hashes.insert(entry.sha256).second);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  CheckConfig(text);
  CheckTokens(text);
  return 0;
}

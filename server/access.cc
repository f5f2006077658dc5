#include "server/access.h"

#include <grpc/grpc_security_constants.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/secret.h"

namespace catserve {
namespace {

constexpr absl::string_view kScheme = "Bearer ";
constexpr size_t kTokenBytesMax = 512;

// Drawn once; empty if there is no randomness, and then nothing is vouched for.
const std::string& ProcessSecret() {
  static const auto* const secret = new std::string(MakeToken().value_or(""));
  return *secret;
}

// The name on the certificate that the connection, or the outer call, came with; empty: none.
std::string PeerName(const grpc::ServerContextBase& context) {
  const std::shared_ptr<const grpc::AuthContext> peer = context.auth_context();
  if (peer != nullptr && peer->IsPeerAuthenticated()) {
    const auto names = peer->FindPropertyValues(GRPC_X509_CN_PROPERTY_NAME);
    return names.size() == 1 ? std::string(names[0].data(), names[0].size()) : "";
  }
  const auto voucher = context.client_metadata().find(kVoucherHeader);
  if (voucher == context.client_metadata().end() || ProcessSecret().empty()) return "";
  const absl::string_view value(voucher->second.data(), voucher->second.size());
  const size_t length = std::min(ProcessSecret().size(), value.size());
  const bool ours = SameHash(Sha256(value.substr(0, length)), Sha256(ProcessSecret()));
  return ours ? std::string(value.substr(length)) : "";
}

absl::StatusOr<Caller> NameOfCertificate(const grpc::ServerContextBase& context) {
  std::string name = PeerName(context);
  if (IsOwnerName(name)) return Caller{std::move(name), nullptr};
  return absl::UnauthenticatedError(
      absl::StrCat("the client certificate's common name must be ", kOwnerNameRule));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Seat>> Caller::Enter(absl::Time now) const {
  if (limits == nullptr) return nullptr;
  return limits->Enter(now);
}

void Access::SetTokens(const std::vector<TokenEntry>& entries) {
  const absl::Time now = absl::Now();
  absl::MutexLock lock(&mutex_);
  std::map<std::string, std::shared_ptr<Owner>> owners;
  for (const Entry& entry : *table_) owners.emplace(entry.owner->name(), entry.owner);
  auto table = std::make_shared<Table>();
  for (const TokenEntry& entry : entries) {
    std::shared_ptr<Owner>& owner = owners[entry.owner];
    if (owner == nullptr) owner = std::make_shared<Owner>(entry.owner, entry.limits, now);
    owner->SetLimits(entry.limits, now);
    table->push_back({entry.sha256, owner});
  }
  table_ = std::move(table);
}

absl::StatusOr<Caller> Access::Identify(const grpc::ServerContextBase& context) const {
  if (mode_ == Mode::kOpen) return Caller();
  if (mode_ == Mode::kCertificates) return NameOfCertificate(context);
  std::vector<absl::string_view> values;
  const auto [first, last] = context.client_metadata().equal_range("authorization");
  for (auto it = first; it != last; ++it) values.emplace_back(it->second.data(), it->second.size());
  return FindToken(values);
}

absl::StatusOr<Caller> Access::FindToken(
    const std::vector<absl::string_view>& authorization) const {
  std::shared_ptr<const Table> table;
  {
    absl::MutexLock lock(&mutex_);
    table = table_;
  }
  if (authorization.size() == 1 && authorization[0].size() <= kScheme.size() + kTokenBytesMax &&
      absl::StartsWithIgnoreCase(authorization[0], kScheme)) {
    const std::string hash = Sha256(authorization[0].substr(kScheme.size()));
    const Entry* found = nullptr;
    for (const Entry& entry : *table) {  // to the end: the time does not tell which one it was
      if (SameHash(entry.sha256, hash)) found = &entry;
    }
    if (found != nullptr) return Caller{found->owner->name(), found->owner};
  }
  return absl::UnauthenticatedError(
      "a known token is needed: send the metadata `authorization: Bearer TOKEN`");
}

std::string Vouch(const grpc::ServerContextBase& outer) {
  const std::string name = PeerName(outer);
  return IsOwnerName(name) ? absl::StrCat(ProcessSecret(), name) : "";
}

std::string OwnSalt(const Caller& caller, const std::string& cache_salt) {
  if (caller.name.empty()) return cache_salt;
  return absl::StrCat(caller.name, absl::string_view("\0", 1), cache_salt);  // no name has a zero
}

}  // namespace catserve

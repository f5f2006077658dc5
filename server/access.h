// Who may call, and as whom.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/server_context.h"
#include "server/config/tokens_file.h"
#include "server/owner.h"

namespace catserve {

// Who called. Without access control: nobody in particular, with an empty name and no limits.
struct Caller {
  std::string name;
  std::shared_ptr<Owner> limits;  // null: none

  // A place for a request; null where there is no limit to keep. Errors: those of Owner::Enter.
  absl::StatusOr<std::unique_ptr<Seat>> Enter(absl::Time now) const;
};

// Every method asks it first. Thread-safe.
class Access {
 public:
  enum class Mode : uint8_t {
    kOpen,          // anybody
    kCertificates,  // the name is that of the client's certificate
    kTokens,
  };
  explicit Access(Mode mode) : mode_(mode) {}

  // For kTokens; until the first call nobody may enter. An owner that stays keeps its counts.
  void SetTokens(const std::vector<TokenEntry>& entries);

  // Errors: UNAUTHENTICATED, with the same words whatever is wrong with a token.
  absl::StatusOr<Caller> Identify(const grpc::ServerContextBase& context) const;

  // The caller of the metadata `authorization`, whose values are these.
  absl::StatusOr<Caller> FindToken(const std::vector<absl::string_view>& authorization) const;

 private:
  struct Entry {
    std::string sha256;
    std::shared_ptr<Owner> owner;
  };
  using Table = std::vector<Entry>;

  const Mode mode_;
  mutable absl::Mutex mutex_;  // held to copy a pointer
  std::shared_ptr<const Table> table_ ABSL_GUARDED_BY(mutex_) = std::make_shared<const Table>();
};

// A call of this process to itself has no certificate of its own: it carries a voucher for the one
// that the outer call came with, which nobody outside can write. Empty: that had none.
inline constexpr char kVoucherHeader[] = "x-catserve-voucher";
std::string Vouch(const grpc::ServerContextBase& outer);

// What a cache_salt of this caller is to the engine: owners never share cached prompts.
std::string OwnSalt(const Caller& caller, const std::string& cache_salt);

}  // namespace catserve

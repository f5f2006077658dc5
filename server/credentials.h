// The server's side of TLS, with certificates that can be replaced while it runs.
#pragma once

#include <grpc/grpc_security.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/security/server_credentials.h"
#include "server/config/config_file.h"

namespace catserve {

inline constexpr size_t kCertificateBytesMax = 1 << 20;  // of each file

// Files' contents, PEM.
struct Certificates {
  std::string chain;      // the server's, its own certificate first
  std::string key;        // of the first
  std::string client_ca;  // empty: clients show no certificate
};

// OK for what a TLS server can start from: everything parses, the key is the certificate's, which
// is valid now and of a kind that every client can use. Errors: INVALID_ARGUMENT naming the file
// and the remedy. `files`: whose contents.
absl::Status CheckCertificates(const Certificates& certificates, const TlsConfig& files);

// New connections use what was last set. gRPC asks for it at each handshake and drops its old
// certificates only for ones that it could take. (Its TlsServerCredentials drops them first, so a
// broken file would end service.) Connections must come from one thread: see Listener.
class TlsCredentials final : public grpc::ServerCredentials {
 public:
  // REQUIRES: CheckCertificates found them good.
  explicit TlsCredentials(Certificates certificates);
  ~TlsCredentials() override;

  // Any thread. REQUIRES: checked, and client_ca as empty or not as the first ones'.
  void Set(Certificates certificates);

  // Not used: tokens are checked with each call (see Access).
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override;
  static grpc_ssl_certificate_config_reload_status Fetch(
      void* self, grpc_ssl_server_certificate_config** config);

  grpc_server_credentials* credentials_ = nullptr;
  absl::Mutex mutex_;
  std::optional<Certificates> next_ ABSL_GUARDED_BY(mutex_);  // not fetched yet
};

}  // namespace catserve

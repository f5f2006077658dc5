#include "server/credentials.h"

#include <grpc/grpc.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace catserve {
namespace {

struct Deleter {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(X509* certificate) const { X509_free(certificate); }
};
template <typename T>
using Owned = std::unique_ptr<T, Deleter>;

Owned<BIO> Open(const std::string& pem) {
  return Owned<BIO>(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
}

// All certificates of the text; empty if one of them is broken.
std::vector<Owned<X509>> ReadAll(const std::string& pem) {
  std::vector<Owned<X509>> all;
  const Owned<BIO> in = Open(pem);
  while (X509* certificate = PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr)) {
    all.emplace_back(certificate);
  }
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) all.clear();
  return all;
}

Owned<EVP_PKEY> ReadKey(const std::string& pem) {
  const auto no_passphrase = [](char*, int, int, void*) { return -1; };  // never ask a terminal
  return Owned<EVP_PKEY>(PEM_read_bio_PrivateKey(Open(pem).get(), nullptr, no_passphrase, nullptr));
}

absl::Status Refuse(absl::string_view key, const std::string& path, absl::string_view what) {
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(key, ": ", path, ": ", what));
}

}  // namespace

absl::Status CheckCertificates(const Certificates& certificates, const TlsConfig& files) {
  ERR_clear_error();
  const auto bad_chain = [&](absl::string_view what) {
    return Refuse("tls.certificate_file", files.certificate_file, what);
  };
  const std::vector<Owned<X509>> chain = ReadAll(certificates.chain);
  if (chain.empty()) return bad_chain("no PEM certificate; write the certificate and its chain");
  X509* const leaf = chain.front().get();
  if (X509_cmp_current_time(X509_get0_notAfter(leaf)) < 0) {
    return bad_chain("the certificate has expired; put a new one there");
  }
  const Owned<EVP_PKEY> key = ReadKey(certificates.key);
  if (key == nullptr) {
    return Refuse("tls.key_file", files.key_file,
                  "no PEM private key without a passphrase; write one");
  }
  const Owned<SSL_CTX> context(SSL_CTX_new(TLS_server_method()));
  if (context == nullptr || SSL_CTX_use_certificate(context.get(), leaf) != 1) {
    return bad_chain(
        "the certificate is refused as too weak; use a key of 2048 bits (RSA) or more");
  }
  if (SSL_CTX_use_PrivateKey(context.get(), key.get()) != 1) {
    return Refuse("tls.key_file", files.key_file,
                  absl::StrCat("not the key of the certificate in ", files.certificate_file,
                               "; write the two that belong together"));
  }
  if (!files.client_ca_file.empty() && ReadAll(certificates.client_ca).empty()) {
    return Refuse("tls.client_ca_file", files.client_ca_file,
                  "no PEM certificate; write those of the authorities that sign callers");
  }
  ERR_clear_error();
  return absl::OkStatus();
}

TlsCredentials::TlsCredentials(Certificates certificates) {
  const bool mutual = !certificates.client_ca.empty();
  next_ = std::move(certificates);
  credentials_ = grpc_ssl_server_credentials_create_with_options(
      grpc_ssl_server_credentials_create_options_using_config_fetcher(
          mutual ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                 : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
          &TlsCredentials::Fetch, this));
}

TlsCredentials::~TlsCredentials() { grpc_server_credentials_release(credentials_); }

void TlsCredentials::Set(Certificates certificates) {
  absl::MutexLock lock(&mutex_);
  next_ = std::move(certificates);
}

int TlsCredentials::AddPortToServer(const std::string& address, grpc_server* server) {
  return grpc_server_add_http2_port(server, address.c_str(), credentials_);
}

grpc_ssl_certificate_config_reload_status TlsCredentials::Fetch(
    void* self, grpc_ssl_server_certificate_config** config) {
  auto* const credentials = static_cast<TlsCredentials*>(self);
  absl::MutexLock lock(&credentials->mutex_);
  if (!credentials->next_.has_value()) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  const Certificates& next = *credentials->next_;
  const grpc_ssl_pem_key_cert_pair pair = {next.key.c_str(), next.chain.c_str()};
  // gRPC asserts that there are roots even where no client is asked for a certificate, so that they
  // are never used.
  const std::string& roots = next.client_ca.empty() ? next.chain : next.client_ca;
  *config = grpc_ssl_server_certificate_config_create(roots.c_str(), &pair, 1);
  credentials->next_.reset();
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

}  // namespace catserve

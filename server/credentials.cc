#include "server/credentials.h"

#include <grpc/grpc.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <array>
#include <iterator>
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

// What the TLS libraries under gRPC's clients have in common: not other curves, nor Ed25519.
bool EveryClientCanUse(const EVP_PKEY* key) {
  constexpr int kRsaBitsMin = 2048;
  constexpr absl::string_view kCurves[] = {SN_X9_62_prime256v1, SN_secp384r1, SN_secp521r1};
  if (key == nullptr) return false;
  if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA) return EVP_PKEY_get_bits(key) >= kRsaBitsMin;
  std::array<char, 64> curve{};
  return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
         EVP_PKEY_get_group_name(key, curve.data(), curve.size(), nullptr) == 1 &&
         std::find(std::begin(kCurves), std::end(kCurves), curve.data()) != std::end(kCurves);
}

// What is wrong with the server's own certificate; empty: nothing.
absl::string_view Fault(const X509* leaf) {
  if (X509_cmp_current_time(X509_get0_notAfter(leaf)) != 1) {
    return "the certificate has expired; put a new one there";
  }
  if (X509_cmp_current_time(X509_get0_notBefore(leaf)) != -1) {
    return "the certificate is not valid yet; put one there that is, or is this machine's clock "
           "wrong?";
  }
  if (!EveryClientCanUse(X509_get0_pubkey(leaf))) {
    return "not every client can use the certificate's key; make an EC key on P-256, P-384 or "
           "P-521, or an RSA key of 2048 bits or more";
  }
  return "";
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
  if (const absl::string_view fault = Fault(leaf); !fault.empty()) return bad_chain(fault);
  const Owned<EVP_PKEY> key = ReadKey(certificates.key);
  if (key == nullptr) {
    return Refuse("tls.key_file", files.key_file,
                  "no PEM private key without a passphrase; write one");
  }
  const Owned<SSL_CTX> context(SSL_CTX_new(TLS_server_method()));
  if (context == nullptr || SSL_CTX_use_certificate(context.get(), leaf) != 1) {
    return bad_chain("the certificate is refused as too weak; have it signed with SHA-256");
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

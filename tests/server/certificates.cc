#include "tests/server/certificates.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <functional>
#include <stdexcept>

namespace catserve::testing {
namespace {

std::string Pem(const std::function<int(BIO*)>& write) {
  BIO* const out = BIO_new(BIO_s_mem());
  if (write(out) != 1) throw std::runtime_error("no PEM");
  char* data = nullptr;
  const auto size = BIO_get_mem_data(out, &data);
  std::string text(data, static_cast<size_t>(size));
  BIO_free(out);
  return text;
}

void AddExtension(X509* certificate, int kind, const char* value) {
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, nullptr, kind, value);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

EVP_PKEY* MakeKey(const std::string& kind) {
  EVP_PKEY* const key = kind == "ED25519"   ? EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519")
                        : kind == "RSA1024" ? EVP_RSA_gen(1024)
                        : kind == "RSA2048" ? EVP_RSA_gen(2048)
                                            : EVP_EC_gen(kind.c_str());
  if (key == nullptr) throw std::runtime_error("no key " + kind);
  return key;
}

X509* Make(EVP_PKEY* key, const std::string& name, const Terms& terms) {
  static long serial = 0;
  X509* const certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate), terms.from);
  X509_gmtime_adj(X509_getm_notAfter(certificate), terms.until);
  X509_set_pubkey(certificate, key);
  if (!name.empty()) {
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
                               reinterpret_cast<const unsigned char*>(name.data()),
                               static_cast<int>(name.size()), -1, 0);
  }
  return certificate;
}

std::string CertificatePem(X509* certificate) {
  return Pem([&](BIO* out) { return PEM_write_bio_X509(out, certificate); });
}

}  // namespace

Authority::Authority(const std::string& name)
    : key_(MakeKey("P-256")), certificate_(Make(key_, name, {.until = 7200})) {
  X509_set_issuer_name(certificate_, X509_get_subject_name(certificate_));
  AddExtension(certificate_, NID_basic_constraints, "critical,CA:TRUE");
  X509_sign(certificate_, key_, EVP_sha256());
  pem_ = CertificatePem(certificate_);
}

Authority::~Authority() {
  X509_free(certificate_);
  EVP_PKEY_free(key_);
}

Issued Authority::Issue(const std::string& common_name, const Terms& terms) const {
  EVP_PKEY* const key = MakeKey(terms.key);
  X509* const certificate = Make(key, common_name, terms);
  X509_set_issuer_name(certificate, X509_get_subject_name(certificate_));
  AddExtension(certificate, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
  X509_sign(certificate, key_, EVP_sha256());
  const Issued issued{CertificatePem(certificate), Pem([&](BIO* out) {
                        return PEM_write_bio_PrivateKey(out, key, nullptr, nullptr, 0, nullptr,
                                                        nullptr);
                      })};
  X509_free(certificate);
  EVP_PKEY_free(key);
  return issued;
}

std::string Locked(const Issued& issued) {
  BIO* const in = BIO_new_mem_buf(issued.key.data(), static_cast<int>(issued.key.size()));
  EVP_PKEY* const key = PEM_read_bio_PrivateKey(in, nullptr, nullptr, nullptr);
  BIO_free(in);
  unsigned char passphrase[] = "secret";
  std::string locked = Pem([&](BIO* out) {
    return PEM_write_bio_PrivateKey(out, key, EVP_aes_256_cbc(), passphrase, 6, nullptr, nullptr);
  });
  EVP_PKEY_free(key);
  return locked;
}

}  // namespace catserve::testing

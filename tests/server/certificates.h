// Certificates for tests, made on the spot.
#pragma once

#include <memory>
#include <string>

#include "tests/engine/model/checkpoint_writer.h"

struct evp_pkey_st;
struct x509_st;

namespace catserve::testing {

// PEM.
struct Issued {
  std::string certificate;
  std::string key;
};

// What a certificate says, other than its name.
struct Terms {
  long from = -7200;          // NOLINT: OpenSSL's long; seconds from now
  long until = 3600;          // NOLINT
  std::string key = "P-256";  // or another curve, "ED25519", "RSA1024", "RSA2048"
};

// A certificate authority.
class Authority {
 public:
  explicit Authority(const std::string& name);
  ~Authority();

  const std::string& pem() const { return pem_; }

  // Signed by it; for 127.0.0.1 and localhost.
  Issued Issue(const std::string& common_name, const Terms& terms = {}) const;

 private:
  evp_pkey_st* key_;
  x509_st* certificate_;
  std::string pem_;
};

// The key with a passphrase.
std::string Locked(const Issued& issued);

}  // namespace catserve::testing

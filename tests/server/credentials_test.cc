// What a TLS server can start from, and how it is told what it cannot.
#include "server/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/certificates.h"

namespace catserve::testing {
namespace {

using ::testing::HasSubstr;

const TlsConfig kFiles{"server.crt", "server.key", "clients.pem"};

TEST(Certificates, GoodOnesAreTaken) {
  const Authority authority("a");
  const Issued issued = authority.Issue("server");
  TlsConfig files = kFiles;
  EXPECT_TRUE(CheckCertificates({issued.certificate, issued.key, authority.pem()}, files).ok());
  EXPECT_TRUE(
      CheckCertificates({issued.certificate + authority.pem(), issued.key, authority.pem()}, files)
          .ok());
  files.client_ca_file = "";
  EXPECT_TRUE(CheckCertificates({issued.certificate, issued.key, ""}, files).ok());
}

TEST(Certificates, WhatNoHandshakeCouldUseIsRefused) {
  const Authority authority("a");
  const auto check = [&authority](const Terms& terms) {
    const Issued issued = authority.Issue("server", terms);
    const absl::Status status =
        CheckCertificates({issued.certificate, issued.key, ""}, {"server.crt", "server.key", ""});
    return status.ok() ? "taken" : std::string(status.message());
  };
  for (const char* key : {"P-256", "P-384", "P-521", "RSA2048"}) {
    EXPECT_EQ(check({.key = key}), "taken") << key;
  }
  for (const char* key : {"secp256k1", "P-224", "brainpoolP256r1", "ED25519", "RSA1024"}) {
    EXPECT_THAT(check({.key = key}), HasSubstr("P-256, P-384 or P-521, or an RSA key")) << key;
  }
  EXPECT_THAT(check({.from = 600}), HasSubstr("server.crt: the certificate is not valid yet"));
}

TEST(Certificates, EachMistakeNamesTheFileAndTheRemedy) {
  const Authority authority("a");
  const Issued issued = authority.Issue("server"), other = authority.Issue("server");
  const Issued expired = authority.Issue("server", {.until = -60});
  const std::string half = issued.certificate.substr(0, issued.certificate.size() / 2);
  const struct {
    Certificates certificates;
    const char* file;
    const char* remedy;
  } cases[] = {
      {{"", issued.key, authority.pem()}, "tls.certificate_file: server.crt", "no PEM certificate"},
      {{half, issued.key, authority.pem()}, "server.crt", "no PEM certificate"},
      {{issued.certificate + half, issued.key, authority.pem()}, "server.crt", "no PEM"},
      {{issued.key, issued.key, authority.pem()}, "server.crt", "no PEM certificate"},
      {{expired.certificate, expired.key, authority.pem()}, "server.crt", "has expired"},
      {{issued.certificate, "", authority.pem()}, "tls.key_file: server.key", "no PEM private key"},
      {{issued.certificate, Locked(issued), authority.pem()}, "server.key", "passphrase"},
      {{issued.certificate, other.key, authority.pem()}, "server.key", "not the key of"},
      {{issued.certificate, issued.key, "x"}, "tls.client_ca_file: clients.pem", "authorities"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.remedy);
    const absl::Status status = CheckCertificates(c.certificates, kFiles);
    EXPECT_TRUE(absl::IsInvalidArgument(status));
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.file));
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.remedy));
    EXPECT_EQ(status.message().find("PRIVATE"), absl::string_view::npos) << "no key in a message";
  }
}

}  // namespace
}  // namespace catserve::testing

#include "server/secret.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <array>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace catserve {

std::string Sha256(absl::string_view bytes) {
  std::string hash(kSha256Bytes, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         reinterpret_cast<unsigned char*>(hash.data()));
  return hash;
}

bool SameHash(absl::string_view a, absl::string_view b) {
  return CRYPTO_memcmp(a.data(), b.data(), kSha256Bytes) == 0;
}

absl::StatusOr<std::string> MakeToken() {
  std::array<unsigned char, kSha256Bytes> random;
  if (RAND_bytes(random.data(), random.size()) != 1) {
    return absl::UnavailableError("the system gives no randomness: is /dev/urandom there?");
  }
  return absl::StrCat("catserve_",
                      absl::WebSafeBase64Escape(absl::string_view(
                          reinterpret_cast<const char*>(random.data()), random.size())));
}

}  // namespace catserve

// CATSERVE_CHECK(condition) << "what to do about it";
//
// For broken invariants only: prints file:line, the condition and the message, and aborts. What
// the world can cause (files, requests, memory) is an absl::Status instead.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace catserve::check_internal {

class Failure {
 public:
  Failure(const char* file, int line, const char* condition) {
    stream_ << file << ':' << line << ": check failed: " << condition << ": ";
  }
  [[noreturn]] ~Failure() {
    std::fprintf(stderr, "%s\n", stream_.str().c_str());
    std::fflush(stderr);
    std::abort();
  }
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

// Binds weaker than << and stronger than ?:, so that both arms of the macro are void.
struct Voidify {
  void operator&(std::ostream&) const {}
};

}  // namespace catserve::check_internal

#define CATSERVE_CHECK(condition)                   \
  __builtin_expect(static_cast<bool>(condition), 1) \
      ? (void)0                                     \
      : ::catserve::check_internal::Voidify() &     \
            ::catserve::check_internal::Failure(__FILE__, __LINE__, #condition).stream()

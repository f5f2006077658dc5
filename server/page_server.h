// Pages over HTTP for operators and their tools: GET only, no state.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace catserve {

struct PageAnswer {
  int status = 200;
  std::string content_type;
  std::string body;
};

struct Page {
  std::string path;  // "/metrics"
  // `format`: what the query's format=... says, untrusted; empty without one. Called on the
  // server's threads, several at a time.
  std::function<PageAnswer(const std::string& format)> answer;
};

// Listens until it is destroyed, which takes its library two seconds. What a caller makes of its
// connection harms other callers of these pages at most: 32 threads of its own answer, and a
// connection that says nothing for five seconds is closed, so that only more silent connections
// than that delay a page.
class PageServer {
 public:
  // `address`: host:port; port 0 lets the system choose. Errors: UNAVAILABLE with the reason.
  static absl::StatusOr<std::unique_ptr<PageServer>> Start(const std::string& address,
                                                           std::vector<Page> pages);
  ~PageServer();

  int port() const;

 private:
  class Impl;
  explicit PageServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace catserve

#include "server/page_server.h"

#include <utility>

#include "CivetServer.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "civetweb.h"

namespace catserve {
namespace {

// As many callers may say nothing, or take their pages slowly, at no cost to another: threads are
// cheap while they wait, and none of them holds what the step thread needs.
constexpr char kThreads[] = "32";
constexpr char kRequestTimeoutMs[] = "5000";

class PageHandler final : public CivetHandler {
 public:
  explicit PageHandler(Page page) : page_(std::move(page)) {}

  const std::string& path() const { return page_.path; }

  bool handleGet(CivetServer* /*server*/, mg_connection* connection) override {
    if (mg_get_request_info(connection)->local_uri != page_.path) {  // a path below it
      return mg_send_http_error(connection, 404, "no such page") >= 0;
    }
    std::string format;
    CivetServer::getParam(connection, "format", format);
    Send(page_.answer(format), connection);
    return true;
  }

 private:
  static void Send(const PageAnswer& answer, mg_connection* connection) {
    mg_response_header_start(connection, answer.status);
    const auto header = [connection](const char* name, const std::string& value) {
      mg_response_header_add(connection, name, value.data(), static_cast<int>(value.size()));
    };
    header("Content-Type", answer.content_type);
    header("Content-Length", absl::StrCat(answer.body.size()));
    header("Cache-Control", "no-store");
    header("X-Content-Type-Options", "nosniff");
    // Nothing runs and nothing is fetched, whatever a page shows.
    header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'");
    mg_response_header_send(connection);
    mg_write(connection, answer.body.data(), answer.body.size());
  }

  const Page page_;
};

}  // namespace

class PageServer::Impl {
 public:
  // Throws CivetException if it cannot listen: the library tells in no other way.
  Impl(const std::string& address, std::vector<Page> pages)
      : server_(std::vector<std::string>{"listening_ports", address, "num_threads", kThreads,
                                         "request_timeout_ms", kRequestTimeoutMs}) {
    for (Page& page : pages) {
      handlers_.push_back(std::make_unique<PageHandler>(std::move(page)));
      server_.addHandler(handlers_.back()->path(), *handlers_.back());
    }
  }
  ~Impl() { server_.close(); }  // while the handlers are there
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  int port() {
    const std::vector<int> ports = server_.getListeningPorts();
    return ports.empty() ? 0 : ports.front();
  }

 private:
  CivetServer server_;
  std::vector<std::unique_ptr<PageHandler>> handlers_;
};

absl::StatusOr<std::unique_ptr<PageServer>> PageServer::Start(const std::string& address,
                                                              std::vector<Page> pages) {
  try {
    return std::unique_ptr<PageServer>(
        new PageServer(std::make_unique<Impl>(address, std::move(pages))));
  } catch (const CivetException& error) {
    return absl::UnavailableError(error.what());
  }
}

PageServer::PageServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PageServer::~PageServer() = default;
int PageServer::port() const { return impl_->port(); }

}  // namespace catserve

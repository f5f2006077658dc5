#include "server/catctl/client.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "server/catctl/flags.h"
#include "server/config/address.h"

namespace catserve {
namespace {

// What the signals' thread cancels. TryCancel is safe from any thread, not from a signal handler.
struct Interrupts {
  absl::Mutex mutex;
  std::set<grpc::ClientContext*> live ABSL_GUARDED_BY(mutex);
  std::atomic<bool> seen = false;
};
Interrupts& TheInterrupts() {
  static auto* const interrupts = new Interrupts;  // lives as long as the signals' thread
  return *interrupts;
}

absl::StatusOr<std::string> ReadToken() {
  const std::string path = absl::GetFlag(FLAGS_token_file);
  const char* const variable = std::getenv("CATSERVE_TOKEN");
  absl::StatusOr<std::string> text = std::string(variable == nullptr ? "" : variable);
  if (!path.empty()) text = ReadInput(path);
  if (!text.ok()) return text;
  const std::string token(absl::StripAsciiWhitespace(*text));
  // A header takes nothing else; the token itself is never told.
  if (std::all_of(token.begin(), token.end(), absl::ascii_isgraph)) return token;
  return absl::InvalidArgumentError(absl::StrCat(path.empty() ? "CATSERVE_TOKEN" : path,
                                                 " is no token: it has spaces or other characters "
                                                 "that no token has"));
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ReadCredentials() {
  const std::string ca = absl::GetFlag(FLAGS_tls_ca);
  const std::string certificate = absl::GetFlag(FLAGS_tls_cert);
  const std::string key = absl::GetFlag(FLAGS_tls_key);
  if (certificate.empty() != key.empty()) {
    return absl::InvalidArgumentError("--tls_cert and --tls_key belong together: give both");
  }
  if (ca.empty()) {
    if (certificate.empty()) return grpc::InsecureChannelCredentials();
    return absl::InvalidArgumentError("--tls_cert needs --tls_ca: who signed the server's?");
  }
  grpc::SslCredentialsOptions options;
  for (const auto& [path, content] :
       {std::pair(ca, &options.pem_root_certs), std::pair(certificate, &options.pem_cert_chain),
        std::pair(key, &options.pem_private_key)}) {
    if (path.empty()) continue;
    absl::StatusOr<std::string> text = ReadInput(path);
    if (!text.ok()) return text.status();
    *content = *std::move(text);
  }
  return grpc::SslCredentials(options);
}

bool IsThisMachine(absl::string_view address) {
  for (const char* const start : {"127.", "localhost:", "[::1]:", "unix:"}) {
    if (absl::StartsWith(address, start)) return true;
  }
  return false;
}

// Of host:port; what else gRPC resolves is its own to check. It would take what is left of a port
// that is too large.
absl::Status CheckAddress(const std::string& address) {
  if (absl::StartsWith(address, "unix") || absl::StrContains(address, "/")) return absl::OkStatus();
  absl::Status status = ReadAddress(address).status();
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat("--server=", address, " ", status.message()));
}

}  // namespace

absl::StatusOr<Client> Connect() {
  Client client;
  client.address = absl::GetFlag(FLAGS_server);
  if (absl::Status status = CheckAddress(client.address); !status.ok()) return status;
  absl::StatusOr<std::string> token = ReadToken();
  if (!token.ok()) return token.status();
  client.token = *std::move(token);
  if (!client.token.empty() && absl::GetFlag(FLAGS_tls_ca).empty() &&
      !IsThisMachine(client.address)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the token would travel to ", client.address,
                     " in plaintext: give --tls_ca, or leave the token away"));
  }
  const auto credentials = ReadCredentials();
  if (!credentials.ok()) return credentials.status();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // tokens of a long text
  const std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomChannel(client.address, *credentials, arguments);
  client.generation = v1::Generation::NewStub(channel);
  client.models = v1::Models::NewStub(channel);
  client.health = grpc::health::v1::Health::NewStub(channel);
  return client;
}

Call::Call(const Client& client, double seconds_default) {
  if (!client.token.empty()) {
    context.AddMetadata("authorization", absl::StrCat("Bearer ", client.token));
  }
  const double flag = absl::GetFlag(FLAGS_timeout_seconds);
  const double seconds = flag > 0 ? flag : seconds_default;
  if (seconds > 0) context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(seconds)));
  Interrupts& interrupts = TheInterrupts();
  absl::MutexLock lock(&interrupts.mutex);
  interrupts.live.insert(&context);
  if (interrupts.seen) context.TryCancel();
}

Call::~Call() {
  Interrupts& interrupts = TheInterrupts();
  absl::MutexLock lock(&interrupts.mutex);
  interrupts.live.erase(&context);
}

void WatchInterrupts() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals] {
    Interrupts& interrupts = TheInterrupts();
    int signal = 0;
    sigwait(&signals, &signal);
    {
      absl::MutexLock lock(&interrupts.mutex);
      interrupts.seen = true;
      for (grpc::ClientContext* const context : interrupts.live) context->TryCancel();
    }
    sigwait(&signals, &signal);
    _exit(kExitInterrupted);
  }).detach();
}

bool Interrupted() { return TheInterrupts().seen; }

int Fail(const grpc::Status& status, const Client& client, bool answered) {
  if (Interrupted()) {
    std::fputs("\ncatctl: interrupted; the request was cancelled\n", stderr);
    return kExitInterrupted;
  }
  std::string message = status.error_message();
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE && !absl::StartsWith(message, "load") &&
      !absl::StartsWith(message, "draining")) {
    message = answered ? absl::StrCat("the answer was cut off: ", client.address,
                                      " stopped or the connection to it was lost")
                       : absl::StrCat("cannot reach ", client.address,
                                      ": start the server with `make serve`, or name another one "
                                      "with --server=HOST:PORT; a server with TLS needs --tls_ca (",
                                      message, ")");
  } else if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    message = absl::StrCat("no answer within --timeout_seconds from ", client.address);
  } else if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED &&
             absl::StrContains(message, "message larger than max")) {  // gRPC's words
    absl::StrAppend(&message, "; send less, or start the server with a larger --request_bytes_max");
  } else if (status.error_code() == grpc::StatusCode::UNAUTHENTICATED) {
    absl::StrAppend(&message, "; catctl sends that of --token_file or CATSERVE_TOKEN");
  } else if (message.empty()) {
    const bool unknown = status.error_code() == grpc::StatusCode::UNIMPLEMENTED;
    message = absl::StrCat(
        absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code())),
        ": the server at ", client.address,
        unknown ? " does not answer this; is it the health port?" : " says nothing more");
  }
  std::fprintf(stderr, "catctl: %s\n", message.c_str());
  return kExitError;
}

int FailUsage(absl::string_view message) {
  std::fprintf(stderr, "catctl: %s\n", std::string(message).c_str());
  return kExitUsage;
}

absl::StatusOr<std::string> ReadInput(const std::string& path) {
  const absl::Status unreadable =
      absl::NotFoundError(absl::StrCat("cannot read ", path, ": is it a file?"));
  std::error_code error;
  if (path != "-" && std::filesystem::is_directory(path, error)) return unreadable;
  std::ifstream file;
  if (path != "-") file.open(path, std::ios::binary);
  std::istream& in = path == "-" ? std::cin : file;
  if (path != "-" && !file.is_open()) return unreadable;
  constexpr size_t kBytesMax = size_t{64} << 20;  // far more than any server takes
  std::string text(size_t{1} << 16, '\0');
  size_t size = 0;
  while (in.read(text.data() + size, static_cast<std::streamsize>(text.size() - size)),
         in.gcount() > 0) {
    size += static_cast<size_t>(in.gcount());
    if (size > kBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " is longer than ", kBytesMax, " bytes"));
    }
    if (size == text.size()) text.resize(2 * size);
  }
  text.resize(size);
  return text;
}

absl::StatusOr<std::vector<int32_t>> ReadNumbers(absl::string_view flag, const std::string& list) {
  std::vector<int32_t> numbers;
  for (const absl::string_view text : absl::StrSplit(list, ',')) {
    int32_t number = 0;
    if (!absl::SimpleAtoi(text, &number)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", flag, "=", list, " is no list of numbers: write --", flag, "=4,8,16"));
    }
    numbers.push_back(number);
  }
  return numbers;
}

}  // namespace catserve

#include "server/catctl/client.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <system_error>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "server/catctl/flags.h"

namespace catserve {
namespace {

// What the signals' thread cancels. TryCancel is safe from any thread, not from a signal handler.
struct Interrupts {
  absl::Mutex mutex;
  grpc::ClientContext* live ABSL_GUARDED_BY(mutex) = nullptr;
  std::atomic<bool> seen = false;
};
Interrupts& TheInterrupts() {
  static auto* const interrupts = new Interrupts;  // lives as long as the signals' thread
  return *interrupts;
}

}  // namespace

Client Connect() {
  Client client;
  client.address = absl::GetFlag(FLAGS_server);
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // tokens of a long text
  const std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomChannel(client.address, grpc::InsecureChannelCredentials(), arguments);
  client.generation = v1::Generation::NewStub(channel);
  client.models = v1::Models::NewStub(channel);
  client.health = grpc::health::v1::Health::NewStub(channel);
  return client;
}

Call::Call(double seconds_default) {
  const double flag = absl::GetFlag(FLAGS_timeout_seconds);
  const double seconds = flag > 0 ? flag : seconds_default;
  if (seconds > 0) context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(seconds)));
  Interrupts& interrupts = TheInterrupts();
  absl::MutexLock lock(&interrupts.mutex);
  interrupts.live = &context;
  if (interrupts.seen) context.TryCancel();
}

Call::~Call() {
  Interrupts& interrupts = TheInterrupts();
  absl::MutexLock lock(&interrupts.mutex);
  interrupts.live = nullptr;
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
      if (interrupts.live != nullptr) interrupts.live->TryCancel();
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
                                      "with --server=HOST:PORT");
  } else if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    message = absl::StrCat("no answer within --timeout_seconds from ", client.address);
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
  std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (path != "-" && !file.is_open()) return unreadable;
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

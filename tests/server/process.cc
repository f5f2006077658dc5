#include "tests/server/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <stdexcept>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

extern char** environ;

namespace catserve::testing {

std::string ServerBinary() { return CATSERVE_BINARY_DIR "/server/catserved"; }
std::string ClientBinary() { return CATSERVE_BINARY_DIR "/server/catctl"; }

void Process::Stream::Read(int fd) {
  thread_ = std::thread([this, fd] {
    char buffer[4096];
    for (;;) {
      const ssize_t count = ::read(fd, buffer, sizeof(buffer));
      absl::MutexLock lock(&mutex_);
      if (count <= 0) {
        ended_ = true;
        break;
      }
      text_.append(buffer, static_cast<size_t>(count));
    }
    ::close(fd);
  });
}

std::string Process::Stream::WaitFor(const std::string& wanted, bool part) {
  std::string line;
  const auto found = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    const size_t at = text_.find(wanted);
    if (at == std::string::npos) return ended_;
    const size_t end = text_.find('\n', at);
    if (end == std::string::npos && !ended_ && !part) return false;
    const size_t start = text_.rfind('\n', at) + 1;  // npos + 1 is 0
    line = text_.substr(start, end - start);
    return true;
  };
  absl::MutexLock lock(&mutex_, absl::Condition(&found));
  return line;
}

std::string Process::Stream::text() {
  absl::MutexLock lock(&mutex_);
  return text_;
}

void Process::Stream::Join() {
  if (thread_.joinable()) thread_.join();
}

Process::Process(const std::vector<std::string>& args, const std::string& input) {
  int in[2], out[2], err[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) {
    throw std::runtime_error("no pipes");
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  posix_spawn_file_actions_adddup2(&actions, err[1], 2);
  std::vector<char*> argv;
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  if (posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ) != 0) {
    throw std::runtime_error("cannot start " + args[0]);
  }
  posix_spawn_file_actions_destroy(&actions);
  ::close(in[0]);
  ::close(out[1]);
  ::close(err[1]);
  // Small enough for the pipe's buffer: does not wait for the reader.
  if (::write(in[1], input.data(), input.size()) != static_cast<ssize_t>(input.size())) {
    throw std::runtime_error("cannot write stdin");
  }
  ::close(in[1]);
  out_.Read(out[0]);
  err_.Read(err[0]);
}

Process::~Process() {
  if (exit_code_ < 0) {
    Signal(SIGKILL);
    Wait();
  }
}

void Process::Signal(int signal) { ::kill(pid_, signal); }

int Process::Wait() {
  if (exit_code_ >= 0) return exit_code_;
  int status = 0;
  ::waitpid(pid_, &status, 0);
  exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  out_.Join();
  err_.Join();
  return exit_code_;
}

namespace {

std::vector<std::string> ServerArgs(const std::string& model_dir,
                                    const std::vector<std::string>& flags) {
  std::vector<std::string> args = {ServerBinary(), "--model=" + model_dir,
                                   "--listen_address=127.0.0.1:0", "--metrics_address=127.0.0.1:0",
                                   "--threads=2"};
  args.insert(args.end(), flags.begin(), flags.end());
  return args;
}

}  // namespace

ServedProcess::ServedProcess(const std::string& model_dir, const std::vector<std::string>& flags)
    : Process(ServerArgs(model_dir, flags)) {}

std::string ServedProcess::PortOf(const std::string& key) {
  const std::string line = WaitForError("event=listening");
  for (const absl::string_view word : absl::StrSplit(line, ' ')) {
    if (absl::StartsWith(word, key)) {
      return absl::StrCat("127.0.0.1:", word.substr(key.size()));
    }
  }
  throw std::runtime_error("the server does not listen: " + WaitForError("reason="));
}

std::string HttpGet(const std::string& address, const std::string& path) {
  const std::vector<std::string> parts = absl::StrSplit(address, ':');
  int port = 0;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[1], &port)) return "";
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  inet_pton(AF_INET, parts[0].c_str(), &to.sin_addr);
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::string answer;
  const std::string request =
      absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: ", address, "\r\nConnection: close\r\n\r\n");
  if (::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0 &&
      ::write(fd, request.data(), request.size()) == static_cast<ssize_t>(request.size())) {
    char buffer[4096];
    for (ssize_t count; (count = ::read(fd, buffer, sizeof(buffer))) > 0;) {
      answer.append(buffer, static_cast<size_t>(count));
    }
  }
  ::close(fd);
  return answer;
}

}  // namespace catserve::testing

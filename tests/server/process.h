// Programs of this tree as a user runs them.
#pragma once

#include <sys/types.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace catserve::testing {

std::string ServerBinary();  // catserved
std::string ClientBinary();  // catctl

// A child process whose output is read as it comes. Killed at the end of the scope if it still
// runs.
class Process {
 public:
  // args[0] is the program's path; `input` is what it reads from stdin.
  explicit Process(const std::vector<std::string>& args, const std::string& input = "");
  ~Process();

  // The first line of stderr that contains `text`; empty if the output ended without one.
  std::string WaitForError(const std::string& text) { return err_.WaitFor(text); }
  // The same of stdout, from when the text is there: the line need not be complete.
  std::string WaitForOutputPart(const std::string& text) { return out_.WaitFor(text, true); }

  pid_t pid() const { return pid_; }
  void Signal(int signal);

  // Waits for the end. The exit code, or 128 + the signal that ended it.
  int Wait();

  // All of it; REQUIRES: Wait() returned.
  std::string out() { return out_.text(); }
  std::string err() { return err_.text(); }

 private:
  class Stream {
   public:
    void Read(int fd);  // until its end, on a thread of its own
    std::string WaitFor(const std::string& text, bool part = false);
    std::string text();
    void Join();

   private:
    absl::Mutex mutex_;
    std::string text_ ABSL_GUARDED_BY(mutex_);
    bool ended_ ABSL_GUARDED_BY(mutex_) = false;
    std::thread thread_;
  };

  pid_t pid_ = -1;
  int exit_code_ = -1;
  Stream out_, err_;
};

// catserved on ports that the system chose.
class ServedProcess : public Process {
 public:
  explicit ServedProcess(const std::string& model_dir, const std::vector<std::string>& flags = {});

  // Waits until it serves; false if it ended instead.
  bool WaitUntilServing() { return !WaitForError("event=serving").empty(); }

  // The address of the gRPC port (of the metrics page), known from when it listens.
  std::string Address() { return PortOf("port="); }
  std::string MetricsAddress() { return PortOf("metrics_port="); }

 private:
  std::string PortOf(const std::string& key);
};

// Answer of GET `path` at `address`, headers and all; empty if nobody answers.
std::string HttpGet(const std::string& address, const std::string& path);

}  // namespace catserve::testing

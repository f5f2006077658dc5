#include "server/reloader.h"

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "server/config/yaml_file.h"
#include "server/log.h"
#include "server/secret.h"

namespace catserve {
namespace {

absl::StatusOr<std::vector<std::string>> ReadFiles(const WatchedFiles& watched) {
  std::vector<std::string> contents;
  for (const auto& [key, path] : watched.files) {
    absl::StatusOr<std::string> content = ReadSmallFile(path, watched.bytes_max);
    if (!content.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(key, ": ", content.status().message()));
    }
    contents.push_back(*std::move(content));
  }
  return contents;
}

// The same for the same contents; keeps no key in memory.
std::string Fingerprint(const absl::StatusOr<std::vector<std::string>>& contents) {
  if (!contents.ok()) return contents.status().ToString();
  std::string hashes;
  for (const std::string& content : *contents) hashes += Sha256(content);
  return hashes;
}

}  // namespace

Reloader::Reloader(std::vector<WatchedFiles> watched) {
  for (WatchedFiles& files : watched) subjects_.push_back({std::move(files), ""});
}

Reloader::~Reloader() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

absl::Status Reloader::LoadAll() {
  for (Subject& subject : subjects_) {
    const absl::StatusOr<std::vector<std::string>> contents = ReadFiles(subject.files);
    if (!contents.ok()) return contents.status();
    subject.seen = Fingerprint(contents);
    if (absl::Status status = subject.files.take(*contents); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void Reloader::Watch(absl::Duration interval) {
  thread_ = std::thread([this, interval] { Run(interval); });
}

void Reloader::LookNow() {
  absl::MutexLock lock(&mutex_);
  asked_ = true;
}

void Reloader::Run(absl::Duration interval) {
  const auto wanted = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return ending_ || asked_; };
  for (;;) {
    bool again = false;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(&wanted), interval);
      if (ending_) return;
      again = std::exchange(asked_, false);
    }
    for (Subject& subject : subjects_) Look(subject, again);
  }
}

void Reloader::Look(Subject& subject, bool again) {
  const absl::StatusOr<std::vector<std::string>> contents = ReadFiles(subject.files);
  std::string seen = Fingerprint(contents);
  if (!again && seen == subject.seen) return;
  subject.seen = std::move(seen);
  const absl::Status status = contents.ok() ? subject.files.take(*contents) : contents.status();
  if (status.ok()) {
    LogInfo("reloaded", {{"what", subject.files.name}});
  } else {
    LogError("reload_failed", {{"what", subject.files.name},
                               {"reason", std::string(status.message())},
                               {"then", "the old stays in use"}});
  }
}

}  // namespace catserve

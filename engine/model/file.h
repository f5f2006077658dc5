// Files of a model directory: untrusted, read-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace catserve {

// A regular file, open for reading. Movable. Reads and does not map: where another process cuts a
// mapped file short, the next look at it ends this process (SIGBUS).
class InputFile {
 public:
  // Errors name the path: NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT if it is no regular file.
  static absl::StatusOr<InputFile> Open(const std::string& path);

  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;
  ~InputFile();

  const std::string& path() const { return path_; }
  int64_t size() const { return size_; }  // in bytes, when it was opened

  // The bytes from `begin` on. Errors name the path: INVALID_ARGUMENT if the file has become too
  // short for them.
  absl::Status Read(int64_t begin, std::span<std::byte> out) const;

 private:
  InputFile(std::string path, int fd, int64_t size)
      : path_(std::move(path)), fd_(fd), size_(size) {}

  std::string path_;
  int fd_ = -1;
  int64_t size_ = 0;
};

// The content of a file of at most `bytes_max` bytes. Errors: those of InputFile, and
// INVALID_ARGUMENT if it is larger.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t bytes_max);

}  // namespace catserve

// Files of a model directory: untrusted, read-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace catserve {

// A whole regular file mapped into memory, read-only. Movable.
class MappedFile {
 public:
  // Errors name the path: NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT if it is no regular file.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const std::byte* data, size_t size) : data_(data), size_(size) {}

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// The content of a file of at most `bytes_max` bytes. Errors: as MappedFile::Open, and
// INVALID_ARGUMENT if it is larger.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t bytes_max);

}  // namespace catserve

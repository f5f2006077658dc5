// Writes small model directories for tests: valid ones, and ones broken on purpose.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernels/tensor.h"

namespace catserve::testing {

// A folder of its own, removed at the end of the scope.
class TempDirectory {
 public:
  TempDirectory();
  ~TempDirectory();
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  void Write(const std::string& name, const std::string& content) const;

 private:
  std::string path_;
};

std::string ReadAll(const std::string& path);

struct HostArray {
  std::vector<int64_t> shape;
  std::vector<float> values;
};
using HostArrays = std::map<std::string, HostArray>;

// A safetensors file of a header, as it is, and data.
std::string SafetensorsFile(const std::string& header, const std::string& data);

// A valid safetensors file; values are rounded to `dtype` (F32, BF16 or F16).
std::string SafetensorsFile(const HostArrays& arrays, DType dtype = DType::kF32);

// The values that a file of that dtype holds.
HostArrays Rounded(HostArrays arrays, DType dtype);

}  // namespace catserve::testing

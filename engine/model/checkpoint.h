// The weights of a model directory: one safetensors file, or several with an index.
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/convert.h"
#include "engine/model/file.h"
#include "engine/model/safetensors.h"
#include "kernels/tensor.h"

namespace catserve {

// Keeps the files open and reads a tensor when it is asked for.
class Checkpoint {
 public:
  // Opens `directory`/model.safetensors, or the shards that model.safetensors.index.json names.
  // Errors: NOT_FOUND, INVALID_ARGUMENT in one line naming the file and what is wrong with it.
  static absl::StatusOr<Checkpoint> Open(const std::string& directory);

  // The tensor of that name and exactly that shape, read anew at each call. Errors: NOT_FOUND or
  // INVALID_ARGUMENT naming file, tensor, what was expected and what was found.
  absl::StatusOr<HostTensor> Tensor(const std::string& name, std::initializer_list<int64_t> shape);

  // How the file holds it. REQUIRES: Tensor(name) succeeded.
  DType StoredType(const std::string& name) const { return tensors_.at(name).info.dtype; }

  // Names that Tensor() was never asked for, in order; counters aside.
  std::vector<std::string> UnusedTensors() const;

  // Elements of all tensors asked for so far.
  int64_t elements_used() const { return elements_used_; }

 private:
  struct Entry {
    TensorInfo info;
    size_t file = 0;
    bool used = false;
  };
  absl::Status AddFile(const std::string& path);

  std::string directory_;
  std::vector<InputFile> files_;
  std::map<std::string, Entry, std::less<>> tensors_;
  int64_t elements_used_ = 0;
};

}  // namespace catserve

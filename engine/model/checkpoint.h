// The weights of a model directory: one safetensors file, or several with an index.
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/file.h"
#include "engine/model/safetensors.h"
#include "kernels/tensor.h"

namespace catserve {

// Maps the files read-only; views stay valid while the checkpoint lives. A file that another
// process cuts meanwhile ends this one (SIGBUS): replace checkpoints by renaming directories, not
// by writing into their files.
class Checkpoint {
 public:
  // Opens `directory`/model.safetensors, or the shards that model.safetensors.index.json names.
  // Errors: NOT_FOUND, INVALID_ARGUMENT in one line naming the file and what is wrong with it.
  static absl::StatusOr<Checkpoint> Open(const std::string& directory);

  // The tensor of that name and exactly that shape. Errors: NOT_FOUND or INVALID_ARGUMENT naming
  // file, tensor, what was expected and what was found.
  absl::StatusOr<TensorView> Tensor(const std::string& name, std::initializer_list<int64_t> shape);

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
  std::vector<std::string> paths_;
  std::vector<MappedFile> files_;
  std::map<std::string, Entry, std::less<>> tensors_;
  int64_t elements_used_ = 0;
};

}  // namespace catserve

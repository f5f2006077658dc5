// Parts of steps that recur, as graphs: a part that came before, launch for launch and argument for
// argument, is given to the device in one go. What is met for the first time is launched as it is
// (which also loads its kernels); the second time it is recorded.
//
// A graph is replayed only if what waits is equal to what was recorded, so a part whose arguments
// are not fixed by its key costs time and nothing else. What the arguments point to is not
// compared: lists are sent to where the recorded launches look for them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/task.h"

namespace catserve::cuda {

using Tasks = std::vector<std::unique_ptr<Task>>;

// Not thread-safe, counts() excepted.
class PartGraphs {
 public:
  // REQUIRES: runtime outlives it.
  explicit PartGraphs(Runtime& runtime) : runtime_(runtime) {}

  // Gives the stream the tasks' work. Neither allocates device memory nor waits, but where a part
  // is recorded.
  void Run(const StepPart& part, Tasks tasks);

  // To be called when memory that graphs may use is freed, once the device has done its work.
  void Forget();

  PartCounts counts() const;

  // Of one part: lists of several lengths, kernels chosen by them.
  static constexpr size_t kVariantsMax = 8;
  // Of all parts: a graph takes device memory.
  static constexpr int kGraphsMax = 256;

 private:
  struct Variant {
    Tasks tasks;
    std::optional<Graph> graph;
    bool refused = false;  // the device would not record it
  };

  void Launch(const Tasks& tasks);
  void Record(Variant& variant);
  void Remember(std::vector<Variant>& variants, Tasks tasks);

  Runtime& runtime_;
  std::map<StepPart, std::vector<Variant>> parts_;
  int graphs_ = 0;
  std::atomic<int64_t> replayed_ = 0, recorded_ = 0, first_ = 0, differed_ = 0, refused_ = 0;
};

}  // namespace catserve::cuda

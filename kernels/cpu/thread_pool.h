// Threads that run the parts of one operation at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace catserve::cpu {

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
};

// The share of [0, items) that falls to `worker` of `workers`: contiguous, fixed by the numbers.
constexpr Range Share(int64_t items, int worker, int workers) {
  return {items * worker / workers, items * (worker + 1) / workers};
}

// Waits passively: a short bounded spin, then a futex. Does not queue and does not balance load:
// who does what is fixed by the worker's number, so that a run can be repeated.
class ThreadPool {
 public:
  // threads: the calling thread included; 0 for one per core that this process may use.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls work(i) for every i in [0, workers), i = 0 on the calling thread, and returns when all
  // are done. REQUIRES: 1 <= workers <= threads(); one caller at a time, and not from within work.
  void Run(int workers, absl::FunctionRef<void(int)> work);

 private:
  // On a line of its own, so that waking one worker does not disturb the others.
  struct alignas(64) Worker {
    std::atomic<int> ticket{0};  // counts the runs that this worker takes part in
    std::thread thread;
  };

  void Loop(Worker& worker, int index);

  std::vector<std::unique_ptr<Worker>> workers_;
  const absl::FunctionRef<void(int)>* work_ = nullptr;
  bool stop_ = false;
  alignas(64) std::atomic<int> pending_{0};  // workers that have not finished the current run
};

}  // namespace catserve::cpu

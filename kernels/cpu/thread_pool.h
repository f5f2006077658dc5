// Threads that run the pieces of one operation at a time.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace catserve::cpu {

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
};

// The share of [0, items) that is `piece` of `pieces`: contiguous, fixed by the numbers.
constexpr Range Share(int64_t items, int64_t piece, int64_t pieces) {
  return {items * piece / pieces, items * (piece + 1) / pieces};
}

// Keeps its pace beside other processes: pieces are claimed one by one, by the caller as well, so
// Run never waits for a worker that the system has not let start; one that comes late finds
// nothing left. What Run may wait for is a piece that a worker has begun: keep pieces short.
// Each worker begins with a share of its own, front to back, so that pieces that follow each other
// in memory are read as one stream; then it takes from the backs of the others' shares. Who does
// which piece is up to chance all the same, so a piece must not depend on who does it.
//
// Waits passively: a short bounded spin, then a futex. Allocates nothing after construction.
class ThreadPool {
 public:
  // threads: the calling thread included; 0 for one per core that this process may use. on_start,
  // if any, is called once on each other thread, with its worker's number, before its first piece.
  explicit ThreadPool(int threads, std::function<void(int worker)> on_start = nullptr);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls work(piece, worker) once for every piece in [0, pieces) and returns when all are done.
  // worker: which of the threads() this is, 0 for the calling one; never two at once. Sleeping
  // threads are woken until `workers` could be at work; a thread that is awake joins uninvited,
  // unless pieces or workers are 1: then the caller works alone.
  // REQUIRES: pieces and workers >= 1; one caller at a time, and not from within work.
  void Run(int pieces, int workers, absl::FunctionRef<void(int piece, int worker)> work);

 private:
  // Pieces of one share that nobody has begun: the first (lower half), up to that after the last.
  struct alignas(64) Unclaimed {
    std::atomic<uint64_t> pieces{0};
  };

  enum class End : uint8_t { kFront, kBack };

  // Claims the first piece of a share, or the last, if any is left.
  static bool Claim(Unclaimed& share, End end, int& piece);
  void Work(int worker);  // does pieces until none is unclaimed
  void Loop(int worker);  // of a thread of the pool
  void AwaitCall(uint32_t last);
  void AwaitEnd();

  // A claim is what gives the right to read work_: until its piece is done, Run cannot return, so
  // *work_ lives and belongs to the run that the piece is of. A thread that looked at a share in
  // one run and claims in a later one has claimed a piece of the later one, and reads its work_.
  // Hence nobody needs to know which run it is, and no tag can wrap into a wrong claim.
  const absl::FunctionRef<void(int, int)>* work_ = nullptr;
  std::vector<Unclaimed> shares_;     // one for each thread
  std::chrono::microseconds spin_{};  // before sleep

  // On lines of their own: claims, ends and sleep do not disturb each other.
  alignas(64) std::atomic<uint32_t> unfinished_{0};  // pieces that are not done
  std::atomic<bool> caller_sleeps_{false};           // on unfinished_
  alignas(64) std::atomic<uint32_t> calls_{0};       // runs so far; threads without work wait on it
  std::atomic<int> sleepers_{0};                     // threads that sleep, or are about to
  std::atomic<bool> stop_{false};

  std::function<void(int)> on_start_;
  std::vector<std::thread> threads_;
};

}  // namespace catserve::cpu

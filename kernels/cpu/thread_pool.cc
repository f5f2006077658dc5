#include "kernels/cpu/thread_pool.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/check.h"
#include "kernels/cpu/futex.h"

namespace catserve::cpu {
namespace {

// Some microseconds: the operations of one layer follow each other faster than a futex wakes, but
// a machine that is busy with other work must not lose its cores to waiting.
constexpr int kSpins = 4000;

template <typename Condition>
bool SpinUntil(Condition condition) {
  for (int i = 0; i < kSpins; ++i) {
    if (condition()) return true;
  }
  return false;
}

}  // namespace

ThreadPool::ThreadPool(int threads, std::function<void(int)> on_start)
    : on_start_(std::move(on_start)) {
  CATSERVE_CHECK(threads >= 0) << "threads is " << threads << "; 0 means one per core";
  if (threads == 0) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  for (int worker = 1; worker < threads; ++worker) {
    threads_.emplace_back([this, worker] { Loop(worker); });
  }
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  ++calls_;
  FutexWake(calls_, std::numeric_limits<int>::max());
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::Run(int pieces, int workers, absl::FunctionRef<void(int, int)> work) {
  CATSERVE_CHECK(pieces >= 1 && workers >= 1) << pieces << " pieces for " << workers << " workers";
  workers = std::min({workers, pieces, threads()});
  if (workers == 1) {
    for (int piece = 0; piece < pieces; ++piece) work(piece, 0);
    return;
  }
  work_ = &work;
  unfinished_.store(static_cast<uint32_t>(pieces), std::memory_order_relaxed);
  // Sequentially consistent, here and in AwaitWork: either this thread sees the sleeper, or the
  // sleeper sees the pieces.
  unclaimed_ = static_cast<uint32_t>(pieces);
  if (sleepers_ > 0) {
    ++calls_;
    FutexWake(calls_, workers - 1);
  }
  Work(0);
  AwaitEnd();
}

bool ThreadPool::Claim(int& piece) {
  uint32_t unclaimed = unclaimed_.load(std::memory_order_relaxed);
  while (unclaimed > 0) {
    // Acquires work_ and all that the caller wrote before the run.
    if (unclaimed_.compare_exchange_weak(unclaimed, unclaimed - 1, std::memory_order_acquire,
                                         std::memory_order_relaxed)) {
      piece = static_cast<int>(unclaimed) - 1;
      return true;
    }
  }
  return false;
}

void ThreadPool::Work(int worker) {
  uint32_t done = 0;
  for (int piece; Claim(piece); ++done) (*work_)(piece, worker);
  if (done == 0) return;
  // The last to end wakes the caller; it may do so in a later run, where that does no harm.
  if (unfinished_.fetch_sub(done) == done && caller_sleeps_) FutexWake(unfinished_, 1);
}

void ThreadPool::AwaitEnd() {
  const auto ended = [this] { return unfinished_.load(std::memory_order_acquire) == 0; };
  if (SpinUntil(ended)) return;
  caller_sleeps_ = true;
  for (uint32_t left; (left = unfinished_) != 0;) FutexWait(unfinished_, left);
  caller_sleeps_.store(false, std::memory_order_relaxed);
}

void ThreadPool::AwaitWork() {
  const auto called = [this] { return unclaimed_ != 0 || stop_; };
  if (SpinUntil(called)) return;
  ++sleepers_;
  for (;;) {
    const uint32_t calls = calls_;
    if (called()) break;
    FutexWait(calls_, calls);
  }
  --sleepers_;
}

void ThreadPool::Loop(int worker) {
  if (on_start_) on_start_(worker);
  for (; !stop_; AwaitWork()) Work(worker);
}

}  // namespace catserve::cpu

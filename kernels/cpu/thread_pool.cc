#include "kernels/cpu/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "kernels/check.h"
#include "kernels/cpu/futex.h"

namespace catserve::cpu {
namespace {

// What one thread does alone between two operations is over by then, and the others are still
// awake: to be woken takes as long. But a machine that is busy with other work must not lose its
// cores to waiting.
constexpr std::chrono::microseconds kSpin{50};
// Where there are more threads than cores somebody always waits for the core of who spins: 32
// threads on two cores took 41 ms for a step that takes them 17 with this.
constexpr std::chrono::microseconds kShortSpin{2};

// A range of pieces in one word.
constexpr uint64_t Pack(Range pieces) {
  return static_cast<uint64_t>(pieces.end) << 32 | static_cast<uint64_t>(pieces.begin);
}
constexpr Range Unpack(uint64_t pieces) {
  return {static_cast<int64_t>(pieces & 0xffffffff), static_cast<int64_t>(pieces >> 32)};
}

// Leaves the core to the other thread that may share it.
void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <typename Condition>
bool SpinUntil(Condition condition, std::chrono::microseconds most) {
  const auto end = std::chrono::steady_clock::now() + most;
  do {
    for (int i = 0; i < 16; ++i) {
      if (condition()) return true;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

ThreadPool::ThreadPool(int threads, std::function<void(int)> on_start)
    : on_start_(std::move(on_start)) {
  CATSERVE_CHECK(threads >= 0) << "threads is " << threads << "; 0 means one per core";
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  if (threads == 0) threads = cores;
  spin_ = threads <= cores ? kSpin : kShortSpin;
  shares_ = std::vector<Unclaimed>(static_cast<size_t>(threads));
  threads_.reserve(static_cast<size_t>(threads) - 1);
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
  for (int i = 0; i < workers; ++i) {
    shares_[i].pieces.store(Pack(Share(pieces, i, workers)), std::memory_order_release);
  }
  // Sequentially consistent, here and in AwaitCall: either this thread sees the sleeper, or the
  // sleeper sees the call.
  ++calls_;
  if (sleepers_ > 0) FutexWake(calls_, workers - 1);
  Work(0);
  AwaitEnd();
}

bool ThreadPool::Claim(Unclaimed& share, End end, int& piece) {
  uint64_t pieces = share.pieces.load(std::memory_order_relaxed);
  for (;;) {
    const Range range = Unpack(pieces);
    if (range.begin == range.end) return false;
    const bool front = end == End::kFront;
    const uint64_t rest =
        front ? Pack({range.begin + 1, range.end}) : Pack({range.begin, range.end - 1});
    // Acquires work_ and all that the caller wrote before the run.
    if (share.pieces.compare_exchange_weak(pieces, rest, std::memory_order_acquire,
                                           std::memory_order_relaxed)) {
      piece = static_cast<int>(front ? range.begin : range.end - 1);
      return true;
    }
  }
}

void ThreadPool::Work(int worker) {
  uint32_t done = 0;
  const size_t own = static_cast<size_t>(worker);
  for (int piece; Claim(shares_[own], End::kFront, piece); ++done) (*work_)(piece, worker);
  for (size_t i = 1; i < shares_.size(); ++i) {
    Unclaimed& share = shares_[(own + i) % shares_.size()];
    for (int piece; Claim(share, End::kBack, piece); ++done) (*work_)(piece, worker);
  }
  if (done == 0) return;
  // The last to end wakes the caller; it may do so in a later run, where that does no harm.
  if (unfinished_.fetch_sub(done) == done && caller_sleeps_) FutexWake(unfinished_, 1);
}

void ThreadPool::AwaitEnd() {
  const auto ended = [this] { return unfinished_.load(std::memory_order_acquire) == 0; };
  if (SpinUntil(ended, spin_)) return;
  caller_sleeps_ = true;
  for (uint32_t left; (left = unfinished_) != 0;) FutexWait(unfinished_, left);
  caller_sleeps_.store(false, std::memory_order_relaxed);
}

void ThreadPool::AwaitCall(uint32_t last) {
  const auto called = [this, last] { return calls_ != last; };
  if (SpinUntil(called, spin_)) return;
  ++sleepers_;
  while (!called()) FutexWait(calls_, last);
  --sleepers_;
}

void ThreadPool::Loop(int worker) {
  if (on_start_) on_start_(worker);
  for (;;) {
    const uint32_t last = calls_;  // read first: a call that Work does not see is then waited for
    if (stop_) return;
    Work(worker);
    AwaitCall(last);
  }
}

}  // namespace catserve::cpu

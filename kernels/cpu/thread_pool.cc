#include "kernels/cpu/thread_pool.h"

#include <algorithm>

#include "kernels/check.h"

namespace catserve::cpu {
namespace {

// Some microseconds: the operations of one layer follow each other faster than a futex wakes, but
// a machine that is busy with other work must not lose its cores to waiting.
constexpr int kSpins = 4000;

int AwaitChange(std::atomic<int>& value, int old) {
  for (int i = 0; i < kSpins; ++i) {
    const int now = value.load(std::memory_order_acquire);
    if (now != old) return now;
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  CATSERVE_CHECK(threads >= 0) << "threads is " << threads << "; 0 means one per core";
  if (threads == 0) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  for (int i = 1; i < threads; ++i) workers_.push_back(std::make_unique<Worker>());
  for (int i = 1; i < threads; ++i) {
    Worker& worker = *workers_[i - 1];
    worker.thread = std::thread([this, &worker, i] { Loop(worker, i); });
  }
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  for (auto& worker : workers_) {
    worker->ticket.fetch_add(1, std::memory_order_release);
    worker->ticket.notify_one();
  }
  for (auto& worker : workers_) worker->thread.join();
}

void ThreadPool::Run(int workers, absl::FunctionRef<void(int)> work) {
  CATSERVE_CHECK(workers >= 1 && workers <= threads())
      << workers << " workers of a pool of " << threads();
  work_ = &work;
  pending_.store(workers - 1, std::memory_order_relaxed);
  for (int i = 1; i < workers; ++i) {
    std::atomic<int>& ticket = workers_[i - 1]->ticket;
    ticket.fetch_add(1, std::memory_order_release);
    ticket.notify_one();
  }
  work(0);
  for (int left = pending_.load(std::memory_order_acquire); left != 0;) {
    left = AwaitChange(pending_, left);
  }
}

void ThreadPool::Loop(Worker& worker, int index) {
  for (int ticket = 0;;) {
    ticket = AwaitChange(worker.ticket, ticket);
    if (stop_) return;
    (*work_)(index);
    pending_.fetch_sub(1, std::memory_order_acq_rel);
    pending_.notify_one();
  }
}

}  // namespace catserve::cpu

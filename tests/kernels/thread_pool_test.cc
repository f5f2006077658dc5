#include "kernels/cpu/thread_pool.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace catserve::cpu {
namespace {

TEST(ShareTest, CoversEveryItemOnce) {
  for (const int64_t items : {0, 1, 2, 7, 64, 1001}) {
    for (const int workers : {1, 2, 3, 8}) {
      int64_t next = 0;
      for (int i = 0; i < workers; ++i) {
        EXPECT_EQ(Share(items, i, workers).begin, next);
        next = Share(items, i, workers).end;
      }
      EXPECT_EQ(next, items);
    }
  }
}

TEST(ThreadPoolTest, ZeroMeansOnePerCore) {
  EXPECT_EQ(ThreadPool(0).threads(), static_cast<int>(std::thread::hardware_concurrency()));
  EXPECT_EQ(ThreadPool(1).threads(), 1);
  EXPECT_EQ(ThreadPool(5).threads(), 5);
}

TEST(ThreadPoolTest, RunsEveryWorkerOnceAndTheCallerIsTheFirst) {
  ThreadPool pool(4);
  for (int workers = 1; workers <= 4; ++workers) {
    std::vector<int> calls(4, 0);
    std::vector<std::thread::id> ids(4);
    pool.Run(workers, [&](int i) {
      ++calls[i];
      ids[i] = std::this_thread::get_id();
    });
    for (int i = 0; i < 4; ++i) EXPECT_EQ(calls[i], i < workers ? 1 : 0) << i;
    EXPECT_EQ(ids[0], std::this_thread::get_id());
  }
}

// What one run writes, the next reads on other threads without any lock: ThreadSanitizer watches.
TEST(ThreadPoolTest, ARunSeesAllThatTheOneBeforeWrote) {
  ThreadPool pool(3);
  std::vector<int64_t> values(3, 0);
  for (int round = 0; round < 2000; ++round) {
    std::vector<int64_t> next(3);
    pool.Run(1 + round % 3, [&](int i) { next[i] = values[(i + 1) % 3] + 1; });
    for (int i = 1 + round % 3; i < 3; ++i) next[i] = values[(i + 1) % 3] + 1;
    values = next;
  }
  EXPECT_EQ(values, std::vector<int64_t>(3, 2000));
}

TEST(ThreadPoolTest, WakesWorkersThatHaveGoneToSleep) {
  ThreadPool pool(3);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::atomic<int> calls{0};
    pool.Run(3, [&](int) { ++calls; });
    EXPECT_EQ(calls, 3);
  }
}

TEST(ThreadPoolTest, ManyMoreThreadsThanCoresStillFinish) {
  ThreadPool pool(32);
  std::atomic<int> calls{0};
  for (int round = 0; round < 50; ++round) pool.Run(32, [&](int) { ++calls; });
  EXPECT_EQ(calls, 32 * 50);
}

}  // namespace
}  // namespace catserve::cpu

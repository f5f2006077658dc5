#include "kernels/cpu/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <latch>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/crew.h"

namespace catserve::cpu {
namespace {

TEST(ShareTest, CoversEveryItemOnce) {
  for (const int64_t items : {0, 1, 2, 7, 64, 1001}) {
    for (const int pieces : {1, 2, 3, 8}) {
      int64_t next = 0;
      for (int i = 0; i < pieces; ++i) {
        EXPECT_EQ(Share(items, i, pieces).begin, next);
        next = Share(items, i, pieces).end;
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

TEST(ThreadPoolTest, DoesEveryPieceOnceWhoeverDoesIt) {
  ThreadPool pool(4);
  for (const int workers : {1, 2, 4, 100}) {
    for (const int pieces : {1, 2, 3, 4, 5, 64, 1000}) {
      std::vector<int> calls(pieces, 0);
      pool.Run(pieces, workers, [&](int piece, int worker) {
        ++calls[piece];
        EXPECT_TRUE(worker >= 0 && worker < 4) << worker;
      });
      EXPECT_EQ(calls, std::vector<int>(pieces, 1));
    }
  }
}

TEST(ThreadPoolTest, TheCallerWorksAloneWhereOneWorkerIsEnough) {
  ThreadPool pool(3);
  const auto alone = [caller = std::this_thread::get_id()](int, int worker) {
    EXPECT_EQ(worker, 0);
    EXPECT_EQ(std::this_thread::get_id(), caller);
  };
  for (int round = 0; round < 100; ++round) {
    pool.Run(16, 1, alone);
    pool.Run(1, 3, alone);
  }
}

// Each piece waits for all the others to be begun: they need as many threads as pieces.
void RunOnEveryThread(ThreadPool& pool) {
  std::latch begun(pool.threads());
  std::vector<int> pieces(pool.threads(), 0);
  pool.Run(pool.threads(), pool.threads(), [&](int, int worker) {
    begun.arrive_and_wait();
    ++pieces[worker];
  });
  EXPECT_EQ(pieces, std::vector<int>(pool.threads(), 1));
}

TEST(ThreadPoolTest, AnInvitationReachesEveryThreadAwakeOrAsleep) {
  ThreadPool pool(3);
  for (int round = 0; round < 200; ++round) {
    if (round % 20 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    RunOnEveryThread(pool);
  }
}

// The bug this pool was written against: beside a busy process, every run waited for the thread
// that had lost its core to it.
TEST(ThreadPoolTest, AThreadThatIsHeldBackHoldsUpNobody) {
  std::latch release(1);
  ThreadPool pool(3, [&](int worker) {
    if (worker == 2) release.wait();
  });
  std::atomic<int> pieces{0};
  for (int round = 0; round < 500; ++round) {
    pool.Run(8, 3, [&](int, int worker) {
      ++pieces;
      EXPECT_NE(worker, 2);
    });
  }
  EXPECT_EQ(pieces, 8 * 500);
  release.count_down();
  RunOnEveryThread(pool);  // it comes late, finds nothing of those runs, and joins the next
}

TEST(ThreadPoolTest, TheCallerDoesAllWhenNobodyElseComes) {
  std::latch release(1);
  ThreadPool pool(4, [&](int) { release.wait(); });
  std::vector<int> by(64, -1);
  pool.Run(64, 4, [&](int piece, int worker) { by[piece] = worker; });
  EXPECT_EQ(by, std::vector<int>(64, 0));
  release.count_down();
}

// Pieces that follow each other in memory are then one stream.
TEST(ThreadPoolTest, AThreadDoesItsShareFrontToBackThenHelpsTheOthersFromTheirBacks) {
  std::latch release(1);
  ThreadPool pool(3, [&](int) { release.wait(); });
  std::vector<int> order;
  pool.Run(9, 3, [&](int piece, int) { order.push_back(piece); });
  EXPECT_EQ(order, std::vector<int>({0, 1, 2, 5, 4, 3, 8, 7, 6}));
  release.count_down();
}

// Runs of one to eight pieces in quick succession, of two functions by turns, each of which dies
// with its run: a thread that is late for one must not do it in the next, nor any piece twice.
TEST(ThreadPoolTest, LateThreadsNeverMixUpRuns) {
  ThreadPool pool(4);
  std::vector<int64_t> even(8, 0), odd(8, 0), want_even(8, 0), want_odd(8, 0);
  for (int64_t round = 0; round < 20000; ++round) {
    const int pieces = 1 + static_cast<int>(round / 2 % 8);
    std::vector<int64_t>& want = round % 2 == 0 ? want_even : want_odd;
    for (int i = 0; i < pieces; ++i) want[i] += round % 2 == 0 ? round : -3 * round;
    if (round % 2 == 0) {
      pool.Run(pieces, 4, [&even, round](int piece, int) { even[piece] += round; });
    } else {
      const int64_t less = 3 * round;
      pool.Run(pieces, 4, [&](int piece, int) { odd[piece] -= less; });
    }
    ASSERT_EQ(even, want_even) << "after round " << round;
    ASSERT_EQ(odd, want_odd) << "after round " << round;
  }
}

// What one run writes, the next reads on other threads without any lock: ThreadSanitizer watches.
TEST(ThreadPoolTest, ARunSeesAllThatTheOneBeforeWrote) {
  ThreadPool pool(3);
  std::vector<int64_t> values(3, 0);
  for (int round = 0; round < 2000; ++round) {
    std::vector<int64_t> next(3);
    pool.Run(3, 1 + round % 3, [&](int i, int) { next[i] = values[(i + 1) % 3] + 1; });
    values = next;
  }
  EXPECT_EQ(values, std::vector<int64_t>(3, 2000));
}

// A worker's number stands for its scratch memory: never two threads with one number.
TEST(ThreadPoolTest, AWorkersNumberIsItsOwn) {
  ThreadPool pool(4);
  std::vector<int64_t> scratch(4, 0);
  for (int round = 0; round < 2000; ++round) {
    pool.Run(8, 4, [&](int, int worker) { ++scratch[worker]; });
  }
  EXPECT_EQ(std::accumulate(scratch.begin(), scratch.end(), int64_t{0}), 8 * 2000);
}

TEST(ThreadPoolTest, ManyMoreThreadsThanCoresStillFinish) {
  ThreadPool pool(32);
  std::atomic<int> calls{0};
  for (int round = 0; round < 50; ++round) pool.Run(32, 32, [&](int, int) { ++calls; });
  EXPECT_EQ(calls, 32 * 50);
}

TEST(ThreadPoolTest, EndsWhileItsThreadsAreBusyStarting) {
  for (int round = 0; round < 50; ++round) {
    ThreadPool pool(4);
    if (round % 2 == 0) pool.Run(4, 4, [](int, int) {});
  }
}

// Ranges that ForRanges makes of `items`, in order; each mate belongs to one thread.
std::vector<std::pair<int64_t, int64_t>> RangesOf(int threads, int64_t items, int64_t work) {
  Crew crew(ReferenceOps(), threads);
  std::mutex mutex;
  std::vector<std::pair<int64_t, int64_t>> ranges;
  std::map<Mate*, std::thread::id> owners;
  crew.ForRanges(items, work, [&](Range range, Mate& mate) {
    const std::lock_guard lock(mutex);
    ranges.emplace_back(range.begin, range.end);
    const auto owner = owners.try_emplace(&mate, std::this_thread::get_id()).first;
    EXPECT_EQ(owner->second, std::this_thread::get_id());
  });
  std::sort(ranges.begin(), ranges.end());
  return ranges;
}

TEST(CrewTest, RangesDependOnTheWorkAloneAndCoverIt) {
  for (const int64_t items : {0, 1, 2, 3, 40, 6000}) {
    for (const int64_t work : {1, 1000, 1 << 20}) {
      const auto alone = RangesOf(1, items, work);
      for (const int threads : {2, 3, 8}) EXPECT_EQ(RangesOf(threads, items, work), alone);
      int64_t next = 0;
      for (const auto& [begin, end] : alone) {
        EXPECT_EQ(begin, next);
        next = end;
      }
      EXPECT_EQ(next, items);
    }
  }
  EXPECT_EQ(RangesOf(2, 40, 1000).size(), 1u);  // not worth a second thread
  EXPECT_EQ(RangesOf(2, 40, 1 << 20).size(), 40u);
}

// Few items of much work: as many threads as items, however few pieces that makes.
TEST(CrewTest, TwoHeavyItemsGoToTwoThreads) {
  Crew crew(ReferenceOps(), 2);
  std::latch begun(2);
  crew.ForEach(2, 1 << 20, [&](int64_t, Mate&) { begun.arrive_and_wait(); });
}

}  // namespace
}  // namespace catserve::cpu

// The threads of a backend, each with its own scratch memory, and how work is dealt out to them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/sampler.h"
#include "kernels/cpu/thread_pool.h"

namespace catserve::cpu {

// What one thread owns. Grows to the largest need seen, so steady work allocates nothing.
struct Mate {
  explicit Mate(const Ops& ops) : sampler(ops) {}

  Sampler sampler;
  std::vector<float> scores;   // of a tile of queries
  std::vector<EntryRun> runs;  // of the entries they see
};

class Crew {
 public:
  Crew(const Ops& ops, int threads) : ops_(ops), pool_(threads) {
    for (int i = 0; i < pool_.threads(); ++i) mates_.emplace_back(ops);
  }

  const Ops& ops() const { return ops_; }
  ThreadPool& pool() { return pool_; }
  std::vector<Range>& tiles() { return tiles_; }  // scratch of the calling thread

  // Calls work(range, mate) for ranges that make up [0, items). work_per_item is in element
  // operations: small work stays on the calling thread, since waking another costs more.
  template <typename Work>
  void ForRanges(int64_t items, int64_t work_per_item, Work work) {
    const int workers = WorkersFor(items, work_per_item);
    pool_.Run(workers, [&](int worker) { work(Share(items, worker, workers), mates_[worker]); });
  }

  // Calls work(i, mate) for every i in [0, items); neighbours go to the same thread.
  template <typename Work>
  void ForEach(int64_t items, int64_t work_per_item, Work work) {
    ForRanges(items, work_per_item, [&](Range share, Mate& mate) {
      for (int64_t i = share.begin; i < share.end; ++i) work(i, mate);
    });
  }

  // The same, but dealt out like cards: for items whose work differs from one end to the other.
  template <typename Work>
  void ForEachDealt(int64_t items, int64_t work_per_item, Work work) {
    const int workers = WorkersFor(items, work_per_item);
    pool_.Run(workers, [&](int worker) {
      for (int64_t i = worker; i < items; i += workers) work(i, mates_[worker]);
    });
  }

 private:
  static constexpr int64_t kWorkPerWorker = 1 << 16;  // about 10 us

  int WorkersFor(int64_t items, int64_t work_per_item) const {
    const int64_t worth = std::max<int64_t>(1, items * work_per_item / kWorkPerWorker);
    return static_cast<int>(
        std::max<int64_t>(1, std::min({static_cast<int64_t>(pool_.threads()), items, worth})));
  }

  const Ops& ops_;
  ThreadPool pool_;
  std::vector<Mate> mates_;
  std::vector<Range> tiles_;
};

}  // namespace catserve::cpu

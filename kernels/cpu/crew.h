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

  // Calls work(range, mate) for ranges that make up [0, items), on several threads if there is work
  // enough. work_per_item is in element operations. The ranges depend on these two numbers alone.
  template <typename Work>
  void ForRanges(int64_t items, int64_t work_per_item, Work work) {
    const int64_t total = items * work_per_item;
    const int64_t workers = 1 + total / kWorkPerWorker;
    const int64_t pieces = workers == 1 ? 1 : std::min({items, total / kWorkPerPiece, kPiecesMax});
    pool_.Run(static_cast<int>(pieces), static_cast<int>(std::min(workers, kPiecesMax)),
              [&](int piece, int worker) { work(Share(items, piece, pieces), mates_[worker]); });
  }

  // Calls work(i, mate) for every i in [0, items); neighbours go to the same thread.
  template <typename Work>
  void ForEach(int64_t items, int64_t work_per_item, Work work) {
    ForRanges(items, work_per_item, [&](Range share, Mate& mate) {
      for (int64_t i = share.begin; i < share.end; ++i) work(i, mate);
    });
  }

 private:
  // In element operations: what is worth waking one more thread for, and what keeps the ends of a
  // run even while claiming a piece stays cheap. Measured: docs/decisions/0004.
  static constexpr int64_t kWorkPerWorker = 1 << 16;  // about 10 us
  static constexpr int64_t kWorkPerPiece = 1 << 14;
  static constexpr int64_t kPiecesMax = 1 << 12;

  const Ops& ops_;
  ThreadPool pool_;
  std::vector<Mate> mates_;
  std::vector<Range> tiles_;
};

}  // namespace catserve::cpu

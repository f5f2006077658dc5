// A check that cannot fail is a defect: bugs of the kinds that kernels have are planted here, and
// the emulator must find each of them.
#include "kernels/cuda/emulator/emulator.h"

#include <bit>
#include <cmath>
#include <set>
#include <vector>

#include "kernels/cuda/device.h"
#include "tests/kernels/device.h"

namespace catserve::cuda {
namespace {

using testing::Random;

constexpr int kThreads = 96;  // three warps
constexpr LaunchShape kOneBlock{.threads = kThreads};

struct Board {
  int32_t values[kThreads];
};

// Thread t reads what thread 95 - t, of another warp, has written.
void Mirror(std::vector<int32_t>& out, bool with_barrier) {
  CATSERVE_SHARED(Board, board);
  board.values[ThreadX()] = ThreadX();
  if (with_barrier) SyncBlock();
  out[BlockX() * kThreads + ThreadX()] = board.values[kThreads - 1 - ThreadX()];
}

TEST(Emulator, EveryThreadOfEveryBlockRunsOnce) {
  const LaunchShape shape{.blocks_x = 3, .blocks_y = 2, .threads = 64};
  for (const uint32_t seed : {0u, 1u, 2u}) {
    std::vector<int> runs(3 * 2 * 64, 0);
    emulator::Launch(shape, seed, [&] {
      EXPECT_EQ(BlocksX(), 3);
      EXPECT_EQ(ThreadsPerBlock(), 64);
      ++runs[(BlockY() * 3 + BlockX()) * 64 + WarpInBlock() * kWarpThreads + Lane()];
    });
    EXPECT_EQ(runs, std::vector<int>(runs.size(), 1));
  }
}

TEST(Emulator, WithABarrierNoOrderOfThreadsMatters) {
  for (uint32_t seed = 0; seed < 8; ++seed) {
    std::vector<int32_t> out(2 * kThreads, -2);
    emulator::Launch({.blocks_x = 2, .threads = kThreads}, seed, [&] { Mirror(out, true); });
    for (int t = 0; t < 2 * kThreads; ++t) EXPECT_EQ(out[t], kThreads - 1 - t % kThreads) << seed;
  }
}

TEST(Emulator, AForgottenBarrierShows) {
  for (uint32_t seed = 0; seed < 8; ++seed) {
    std::vector<int32_t> out(kThreads, -2);
    emulator::Launch(kOneBlock, seed, [&] { Mirror(out, false); });
    int stale = 0;
    for (int t = 0; t < kThreads; ++t) stale += out[t] != kThreads - 1 - t ? 1 : 0;
    EXPECT_GT(stale, 0) << seed;
  }
}

TEST(Emulator, ABarrierForgottenBetweenWarpsInStepShowsForSomeSeed) {
  // Read and write are two collectives apart: only warps that drift apart find it.
  std::set<int32_t> seen;
  for (uint32_t seed = 1; seed < 16; ++seed) {
    int32_t read = -2;
    emulator::Launch({.threads = 64}, seed, [&] {
      CATSERVE_SHARED(Board, board);
      SyncWarp();
      if (ThreadX() == 0) board.values[0] = 7;
      SyncWarp();
      SyncWarp();
      if (ThreadX() == 32) read = board.values[0];
    });
    seen.insert(read);
  }
  EXPECT_EQ(seen, (std::set<int32_t>{-1, 7}));
}

TEST(Emulator, SharedMemoryBeginsAsNaNInEveryBlock) {
  struct Cell {
    float value;
  };
  std::vector<float> first(2, 0.0f);
  emulator::Launch({.blocks_x = 2}, 0, [&] {
    CATSERVE_SHARED(Cell, cell);
    if (Lane() == 0) first[BlockX()] = cell.value;
    SyncWarp();
    cell.value = 1.0f;
  });
  EXPECT_TRUE(std::isnan(first[0]) && std::isnan(first[1]));
}

TEST(Emulator, ShufflesGiveWhatTheOtherLaneHeld) {
  emulator::Launch({.threads = 64}, 3, [] {
    EXPECT_EQ(Shuffle(ThreadX(), 5), WarpInBlock() * kWarpThreads + 5);
    EXPECT_EQ(ShuffleXor(static_cast<uint64_t>(Lane()) << 40, 8) >> 40, Lane() ^ 8);
    EXPECT_EQ(SumOverLanes(1.0f), 32.0f);
    EXPECT_EQ(SumOverLanes<4>(static_cast<float>(Lane())), 4 * (Lane() / 4 * 4) + 6);
    EXPECT_EQ(MaxOverLanes(static_cast<float>(Lane() * Lane())), 31 * 31);
  });
}

// The tile of one warp with its fragments filled as the PTX manual's tables for m16n8k16 say.
template <typename T>
void CheckTile(uint32_t seed) {
  Random random(seed);
  const auto narrow = [](std::vector<float> values) {
    for (float& value : values) value = ToFloat(FromFloat<T>(value));
    return values;
  };
  const std::vector<float> a = narrow(random.Normal(16 * 16));  // [row, k]
  const std::vector<float> b = narrow(random.Normal(16 * 8));   // [k, column]
  const auto pack = [](float low, float high) {
    return FromFloat<T>(low).bits | static_cast<uint32_t>(FromFloat<T>(high).bits) << 16;
  };
  std::vector<float> got(16 * 8, NAN);
  emulator::Launch({}, seed, [&] {
    const int group = Lane() >> 2;
    const int in_group = Lane() & 3;
    uint32_t a_words[4];
    for (int i = 0; i < 4; ++i) {
      const int row = group + (i % 2 == 1 ? 8 : 0);
      const int k = in_group * 2 + (i >= 2 ? 8 : 0);
      a_words[i] = pack(a[row * 16 + k], a[row * 16 + k + 1]);
    }
    uint32_t b_words[2];
    for (int i = 0; i < 2; ++i) {
      const int k = in_group * 2 + i * 8;
      b_words[i] = pack(b[k * 8 + group], b[(k + 1) * 8 + group]);
    }
    float d[4] = {0.5f, 0.5f, 0.5f, 0.5f};
    MatrixMultiplyAdd<T>(d, a_words, b_words);
    for (int i = 0; i < 4; ++i) got[(group + i / 2 * 8) * 8 + in_group * 2 + i % 2] = d[i];
  });
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      double want = 0.5;
      for (int k = 0; k < 16; ++k) want += double{a[row * 16 + k]} * b[k * 8 + column];
      EXPECT_NEAR(got[row * 8 + column], want, 1e-5) << row << ' ' << column;
    }
  }
}

TEST(Emulator, TensorCoreTilesAreProductsOfTheirFragments) {
  CheckTile<BF16>(1);
  CheckTile<F16>(2);
}

// -- Planted bugs. Out of line: a macro's lines are one place to the compiler. --------------------

void ReturnBeforeABarrier(int thread) {
  if (ThreadX() == thread) return;
  SyncBlock();
}

void MeetDifferentBarriers() {
  if (WarpInBlock() == 0) {
    SyncBlock();
  } else {
    SyncBlock();
  }
}

void ShuffleInBothBranches() {
  if (Lane() < 16) {
    Shuffle(1, 0);
  } else {
    Shuffle(2, 0);
  }
}

void WaitForWarpAndBlock() {
  if (Lane() < 16) SyncBlock();
  SyncWarp();
  if (Lane() >= 16) SyncBlock();
}

void UseTwoSharedStructures() {
  CATSERVE_SHARED(Board, board);
  CATSERVE_SHARED(uint64_t, other);
  other = static_cast<uint64_t>(board.values[0]);
}

using EmulatorDeathTest = ::testing::Test;

TEST(EmulatorDeathTest, ABarrierAfterAThreadReturned) {
  EXPECT_DEATH(emulator::Launch(kOneBlock, 0, [] { ReturnBeforeABarrier(3); }),
               "emulator_test.cc.*after a thread of the block has returned");
}

TEST(EmulatorDeathTest, AThreadThatReturnsWhileOthersWait) {
  EXPECT_DEATH(emulator::Launch(kOneBlock, 0, [] { ReturnBeforeABarrier(kThreads - 1); }),
               "waits for threads that have returned");
}

TEST(EmulatorDeathTest, DifferentBarriersOfABlock) {
  EXPECT_DEATH(emulator::Launch(kOneBlock, 1, MeetDifferentBarriers), "different barriers");
}

TEST(EmulatorDeathTest, LanesThatShuffleInDifferentBranches) {
  EXPECT_DEATH(emulator::Launch(kOneBlock, 1, ShuffleInBothBranches),
               "lanes of a warp meet different collectives");
}

TEST(EmulatorDeathTest, LanesThatLeaveOutAShuffle) {
  EXPECT_DEATH(emulator::Launch(kOneBlock, 1,
                                [] {
                                  if (Lane() < 31) Shuffle(1, 0);
                                }),
               "waits for threads that have returned");
}

TEST(EmulatorDeathTest, HalfAWarpWaitsForTheBlock) {
  EXPECT_DEATH(emulator::Launch({}, 0, WaitForWarpAndBlock),
               "some threads wait for their warp, others for the block");
}

TEST(EmulatorDeathTest, AShuffleFromALaneThatIsNone) {
  EXPECT_DEATH(emulator::Launch(kOneBlock, 0, [] { Shuffle(1, 32); }), "lane that is none");
}

TEST(EmulatorDeathTest, AMisalignedLoad) {
  alignas(16) float values[8] = {};
  EXPECT_DEATH(emulator::Launch({}, 0, [&] { LoadVector<16>(values + 1); }), "misaligned load");
}

TEST(EmulatorDeathTest, TwoSharedStructures) {
  EXPECT_DEATH(emulator::Launch({}, 0, UseTwoSharedStructures), "one shared structure");
}

TEST(EmulatorDeathTest, ABlockThatIsNotWholeWarps) {
  EXPECT_DEATH(emulator::Launch({.threads = 33}, 0, [] {}), "make it whole warps");
}

}  // namespace
}  // namespace catserve::cuda

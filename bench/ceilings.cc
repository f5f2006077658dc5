#include "bench/ceilings.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace catserve {
namespace {

using Lanes = float __attribute__((vector_size(32)));

double Seconds(const std::function<void(int)>& work, int threads) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> pool;
  for (int t = 1; t < threads; ++t) pool.emplace_back(work, t);
  work(0);
  for (std::thread& t : pool) t.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::atomic<float> g_keep;  // results go here, so that the compiler must compute them

__attribute__((target("avx2,fma"))) float MultiplyAdds(int64_t rounds) {
  // Twelve chains hide the latency of two multiply-add units.
  constexpr int kChains = 12;
  Lanes acc[kChains];
  for (int j = 0; j < kChains; ++j) acc[j] = Lanes{} + static_cast<float>(j);  // or they merge
  const Lanes a = Lanes{} + 1.0000001f, b = Lanes{} + 1e-9f;
  for (int64_t i = 0; i < rounds; ++i) {
    // An asm statement or a loop that stays one would keep the chains in memory.
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) acc[j] = __builtin_ia32_vfmaddps256(acc[j], a, b);
  }
  Lanes sum = {};
  for (const Lanes& lane : acc) sum += lane;
  return sum[0];
}

__attribute__((target("avx2"))) float ReadAll(const float* data, int64_t count) {
  Lanes sum[4] = {};
  for (int64_t i = 0; i + 32 <= count; i += 32) {
    for (int64_t j = 0; j < 4; ++j) sum[j] += *reinterpret_cast<const Lanes*>(data + i + 8 * j);
  }
  return (sum[0] + sum[1] + sum[2] + sum[3])[0];
}

struct alignas(64) CacheLine {
  float lanes[16];
};

}  // namespace

Ceilings MeasureCeilings(int threads) {
  constexpr int64_t kRounds = 8'000'000;
  constexpr int64_t kLines = (int64_t{256} << 20) / sizeof(CacheLine);
  constexpr int kTries = 4;
  Ceilings best;
  std::vector<CacheLine> memory(kLines, CacheLine{});
  const float* floats = memory.front().lanes;
  const int64_t share = kLines / threads * 16;
  for (int i = 0; i < kTries; ++i) {
    const double fma = Seconds([&](int) { g_keep = MultiplyAdds(kRounds); }, threads);
    const double read =
        Seconds([&](int t) { g_keep = ReadAll(floats + t * share, share); }, threads);
    best.flops_per_second = std::max(best.flops_per_second, kRounds * 12.0 * 8 * 2 * threads / fma);
    best.read_bytes_per_second =
        std::max(best.read_bytes_per_second, 4.0 * static_cast<double>(share * threads) / read);
  }
  return best;
}

}  // namespace catserve

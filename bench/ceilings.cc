#include "bench/ceilings.h"

#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "kernels/cpu/host_buffer.h"

namespace catserve {
namespace {

double Seconds(const std::function<void(int)>& work, int threads) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> pool;
  for (int t = 1; t < threads; ++t) pool.emplace_back(work, t);
  work(0);
  for (std::thread& t : pool) t.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::atomic<float> g_keep;  // results go here, so that the compiler must compute them

// Twelve chains hide the latency of two multiply-add units.
constexpr int kChains = 12;
constexpr float kFactor = 1.0000001f;
constexpr float kSummand = 1e-9f;

// Rounds of multiply-adds, one in each chain, in registers of 256 bits.
__attribute__((target("avx2,fma"))) float MultiplyAdds256(int64_t rounds) {
  __m256 acc[kChains];
  for (int j = 0; j < kChains; ++j)
    acc[j] = _mm256_set1_ps(static_cast<float>(j));  // or they merge
  for (int64_t i = 0; i < rounds; ++i) {
    // An asm statement or a loop that stays one would keep the chains in memory.
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) {
      acc[j] = _mm256_fmadd_ps(acc[j], _mm256_set1_ps(kFactor), _mm256_set1_ps(kSummand));
    }
  }
  for (int j = 1; j < kChains; ++j) acc[0] = _mm256_add_ps(acc[0], acc[j]);
  return _mm256_cvtss_f32(acc[0]);
}

// The same in 512 bits.
__attribute__((target("avx512f"))) float MultiplyAdds512(int64_t rounds) {
  __m512 acc[kChains];
  for (int j = 0; j < kChains; ++j) acc[j] = _mm512_set1_ps(static_cast<float>(j));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) {
      acc[j] = _mm512_fmadd_ps(acc[j], _mm512_set1_ps(kFactor), _mm512_set1_ps(kSummand));
    }
  }
  for (int j = 1; j < kChains; ++j) acc[0] = _mm512_add_ps(acc[0], acc[j]);
  return _mm512_cvtss_f32(acc[0]);
}

// The same of pairs of BF16.
__attribute__((target("avx512f,avx512bf16"))) float MultiplyAddsBf16(int64_t rounds) {
  const auto ones = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f803f80));
  __m512 acc[kChains];
  for (int j = 0; j < kChains; ++j) acc[j] = _mm512_set1_ps(static_cast<float>(j));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) acc[j] = _mm512_dpbf16_ps(acc[j], ones, ones);
  }
  for (int j = 1; j < kChains; ++j) acc[0] = _mm512_add_ps(acc[0], acc[j]);
  return _mm512_cvtss_f32(acc[0]);
}

// Of whole numbers eight are enough, and more GCC 12 keeps in memory.
constexpr int kWholeChains = 8;

// Of whole numbers: eight bits by eight, widened to 16. Their additions are left out: they find
// room beside the multiplications, which bind.
__attribute__((target("avx2"))) float Int8MultiplyAdds(int64_t rounds) {
  __m256i acc[kWholeChains];
  for (int j = 0; j < kWholeChains; ++j) acc[j] = _mm256_set1_epi16(static_cast<int16_t>(j));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kWholeChains; ++j) {
      acc[j] = _mm256_madd_epi16(acc[j], _mm256_set1_epi16(3));
    }
  }
  for (int j = 1; j < kWholeChains; ++j) acc[0] = _mm256_add_epi32(acc[0], acc[j]);
  return static_cast<float>(_mm256_extract_epi32(acc[0], 0));
}

// Four bits by eight.
__attribute__((target("avx2"))) float Int4MultiplyAdds(int64_t rounds) {
  __m256i acc[kWholeChains];
  for (int j = 0; j < kWholeChains; ++j) acc[j] = _mm256_set1_epi16(static_cast<int16_t>(j));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kWholeChains; ++j) {
      acc[j] = _mm256_maddubs_epi16(acc[j], _mm256_set1_epi8(3));
    }
  }
  for (int j = 1; j < kWholeChains; ++j) acc[0] = _mm256_add_epi16(acc[0], acc[j]);
  return static_cast<float>(_mm256_extract_epi32(acc[0], 0));
}

// Either, in 512 bits with VNNI.
__attribute__((target("avx512f,avx512vnni"))) float MultiplyAddsVnni(int64_t rounds) {
  __m512i acc[kChains];
  for (int j = 0; j < kChains; ++j) acc[j] = _mm512_set1_epi32(j);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) {
      acc[j] = _mm512_dpbusd_epi32(acc[j], acc[j], _mm512_set1_epi8(3));
    }
  }
  for (int j = 1; j < kChains; ++j) acc[0] = _mm512_add_epi32(acc[0], acc[j]);
  return static_cast<float>(_mm512_cvtsi512_si32(acc[0]));
}

// The widest that the machine has, as the engine takes them.
struct MultiplyAdds {
  float (*run)(int64_t rounds);
  double ops_per_round;

  double OpsPerSecond(int threads) const {
    if (run == nullptr) return 0;
    constexpr int64_t kRounds = 8'000'000;
    const double seconds = Seconds([&](int) { g_keep = run(kRounds); }, threads);
    return kRounds * ops_per_round * threads / seconds;
  }
};
MultiplyAdds Floats() {
  if (__builtin_cpu_supports("avx512f")) return {MultiplyAdds512, kChains * 16 * 2.0};
  return {MultiplyAdds256, kChains * 8 * 2.0};
}
MultiplyAdds Bf16() {
  if (__builtin_cpu_supports("avx512bf16")) return {MultiplyAddsBf16, kChains * 32 * 2.0};
  return {};
}
MultiplyAdds Int8() {
  if (__builtin_cpu_supports("avx512vnni")) return {MultiplyAddsVnni, kChains * 64 * 2.0};
  return {Int8MultiplyAdds, kWholeChains * 16 * 2.0};
}
MultiplyAdds Int4() {
  if (__builtin_cpu_supports("avx512vnni")) return {MultiplyAddsVnni, kChains * 64 * 2.0};
  return {Int4MultiplyAdds, kWholeChains * 32 * 2.0};
}

__attribute__((target("avx2"))) float ReadAll(const float* data, int64_t count) {
  __m256 sum[4] = {};
  for (int64_t i = 0; i + 32 <= count; i += 32) {
    for (int64_t j = 0; j < 4; ++j) {
      sum[j] = _mm256_add_ps(sum[j], _mm256_loadu_ps(data + i + 8 * j));
    }
  }
  return _mm256_cvtss_f32(
      _mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
}

}  // namespace

double Ceilings::OpsPerSecond(std::string_view weight_dtype) const {
  double own = 0;
  if (weight_dtype == "BF16") own = bf16_ops_per_second;
  if (weight_dtype == "I8") own = int8_ops_per_second;
  if (weight_dtype == "I4") own = int4_ops_per_second;
  if (weight_dtype == "F8_E4M3") own = e4m3_ops_per_second;
  return std::max(flops_per_second, own);
}

const char* WeightDtype(DType host, WeightFormat format) {
  if (format == WeightFormat::kInt8) return "I8";
  if (format == WeightFormat::kInt4) return "I4";
  return format == WeightFormat::kE4M3 ? "F8_E4M3" : Name(host);
}

Ceilings Best(const Ceilings& a, const Ceilings& b) {
  return {.read_bytes_per_second = std::max(a.read_bytes_per_second, b.read_bytes_per_second),
          .flops_per_second = std::max(a.flops_per_second, b.flops_per_second),
          .bf16_ops_per_second = std::max(a.bf16_ops_per_second, b.bf16_ops_per_second),
          .int8_ops_per_second = std::max(a.int8_ops_per_second, b.int8_ops_per_second),
          .int4_ops_per_second = std::max(a.int4_ops_per_second, b.int4_ops_per_second),
          .e4m3_ops_per_second = std::max(a.e4m3_ops_per_second, b.e4m3_ops_per_second)};
}

Ceilings MeasureCeilings(int threads) {
  constexpr int64_t kFloats = int64_t{64} << 20;
  constexpr int kTries = 4;
  Ceilings best;
  // Memory of the kind that weights have, with large pages where the system gives them.
  const auto memory = cpu::HostBuffer::Create(kFloats * 4).value();
  const auto* floats = static_cast<const float*>(memory->data());
  const int64_t share = kFloats / threads / 16 * 16;
  for (int i = 0; i < kTries; ++i) {
    const double read =
        Seconds([&](int t) { g_keep = ReadAll(floats + t * share, share); }, threads);
    best = Best(best, {.read_bytes_per_second = 4.0 * static_cast<double>(share * threads) / read,
                       .flops_per_second = Floats().OpsPerSecond(threads),
                       .bf16_ops_per_second = Bf16().OpsPerSecond(threads),
                       .int8_ops_per_second = Int8().OpsPerSecond(threads),
                       .int4_ops_per_second = Int4().OpsPerSecond(threads)});
  }
  return best;
}

}  // namespace catserve

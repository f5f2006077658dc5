// Speed of the seam's heavy operations, beside what the machine could do. On the CPU: products with
// weights rotated through more memory than any cache holds, attention over long lists of pages, and
// the drawing of tokens. On a GPU: device_kernels.h. Prints a table, then name=value lines.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "bench/ceilings.h"
#include "bench/device_kernels.h"
#include "bench/random_numbers.h"
#include "kernels/backend_factory.h"

ABSL_FLAG(std::string, backend, "cpu", "cpu, one of its forms as cpu-avx2, or cuda");
ABSL_FLAG(std::string, cases, "",
          "cuda: of ceilings, attention, products, sampling, rows this; empty: all");

namespace catserve {
namespace {

constexpr int64_t kOut = 4096;
constexpr int64_t kIn = 1536;
constexpr int64_t kWeightBytes = int64_t{160} << 20;
constexpr int kTries = 12;

// The best of a few tries: on a shared machine the others measure the neighbours.
double BestSeconds(const std::function<void()>& work) {
  double best = 1e30;
  for (int i = 0; i < kTries; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const auto end = std::chrono::steady_clock::now();
    best = std::min(best, std::chrono::duration<double>(end - start).count());
  }
  return best;
}

void Print(const std::string& name, double value, const char* unit) {
  std::printf("%s=%.4g %s\n", name.c_str(), value, unit);
}

class KernelBench {
 public:
  KernelBench(std::unique_ptr<Backend> backend, int threads)
      : backend_(std::move(backend)), ceilings_(MeasureCeilings(threads)) {
    std::printf("backend %s, %d threads\n", backend_->Description(), threads);
    Print("read_bandwidth", ceilings_.read_bytes_per_second / 1e9, "GB/s");
    Print("fma_peak", ceilings_.flops_per_second / 1e9, "GFLOP/s");
    Print("bf16_peak", ceilings_.bf16_ops_per_second / 1e9, "GFLOP/s");
    Print("int8_peak", ceilings_.int8_ops_per_second / 1e9, "GOP/s");
    Print("int4_peak", ceilings_.int4_ops_per_second / 1e9, "GOP/s");
  }

  void MatMul(DType dtype, WeightFormat format) {
    std::vector<float> host = RandomFloats(kOut * kIn, 0.05f);  // as BF16: any bits do
    const TensorView view(host.data(), dtype, {kOut, kIn});
    std::vector<std::unique_ptr<Matrix>> weights;
    for (int64_t bytes = 0; bytes < kWeightBytes; bytes += weights.back()->bytes()) {
      weights.push_back(backend_->Pack(view, format).value());
    }
    for (const int64_t rows : {1, 2, 4, 8, 16, 32, 64, 512}) {
      std::vector<float> x = RandomFloats(rows * kIn, 1.0f), out(rows * kOut);
      const TensorView x_view(x.data(), DType::kF32, {rows, kIn});
      const TensorView out_view(out.data(), DType::kF32, {rows, kOut});
      const size_t count = rows < 16 ? weights.size() : 2;
      const double seconds =
          BestSeconds([&] {
            for (size_t i = 0; i < count; ++i) {
              backend_->MatMul(out_view, x_view, *weights[next_++ % weights.size()], false);
            }
          }) /
          static_cast<double>(count);
      const std::string name = std::string("matmul_") +
                               (format == WeightFormat::kInt4   ? "I4"
                                : format == WeightFormat::kInt8 ? "I8"
                                                                : Name(dtype)) +
                               "_rows_" + std::to_string(rows);
      Print(name + "_bandwidth", static_cast<double>(weights[0]->bytes()) / seconds / 1e9, "GB/s");
      Print(name + "_rate", 2e-9 * static_cast<double>(rows * kOut * kIn) / seconds, "GFLOP/s");
    }
  }

  // rows of one sequence of `entries` entries each, in fresh pages; or a prefill of one.
  void Attention(DType dtype, int64_t rows, bool prefill) {
    constexpr int32_t kHeads = 12, kHeadDim = 64;
    constexpr int64_t kEntries = 1024, kPages = kEntries / kKvPageEntries;
    const int64_t lists = prefill ? 1 : rows;
    const auto pool =
        backend_->Allocate(lists * kPages * kHeads * 2 * kKvPageEntries * kHeadDim * SizeOf(dtype))
            .value();
    const auto scales =
        backend_->Allocate(lists * kPages * kHeads * 2 * kKvPageEntries * KvScaleBytes(dtype))
            .value();
    KvLayer kv{pool->data(), dtype, lists * kPages, kHeads, kHeadDim};
    if (dtype == DType::kI8) kv.scales = static_cast<uint16_t*>(scales->data());
    std::vector<int32_t> pages(lists * kPages);
    for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(i);
    std::vector<AttentionRow> described;
    for (int32_t i = 0; i < rows; ++i) {
      const int32_t list = prefill ? 0 : i;
      const int64_t entries = prefill ? kEntries - rows + i + 1 : kEntries;
      described.push_back(
          {0, 0, list * static_cast<int32_t>(kPages), static_cast<int32_t>(entries)});
    }
    std::vector<float> q = RandomFloats(rows * kHeads * kHeadDim, 1.0f), out(q.size());
    const TensorView q_view(q.data(), DType::kF32, {rows, int64_t{kHeads} * kHeadDim});
    const TensorView out_view(out.data(), DType::kF32, {rows, int64_t{kHeads} * kHeadDim});
    const HeadSpec spec{.heads = kHeads, .kv_heads = kHeads, .head_dim = kHeadDim};
    const double seconds = BestSeconds(
        [&] { backend_->PagedAttention(out_view, q_view, spec, kv, described, pages); });
    int64_t seen = 0;
    for (const AttentionRow& row : described) seen += row.entries;
    const std::string name = std::string(prefill ? "prefill" : "decode") + "_attention_" +
                             Name(dtype) + "_rows_" + std::to_string(rows);
    Print(name + "_bandwidth", static_cast<double>(pool->bytes() + scales->bytes()) / seconds / 1e9,
          "GB/s");
    Print(name + "_rate", 4e-9 * static_cast<double>(seen * kHeads * kHeadDim) / seconds,
          "GFLOP/s");
  }

  void Sampling() {
    constexpr int32_t kVocab = 50'000;
    constexpr int64_t kRows = 16;
    std::vector<float> logits = RandomFloats(kRows * kVocab, 12.0f);
    const TensorView view(logits.data(), DType::kF32, {kRows, kVocab});
    const std::pair<const char*, SampleSpec> cases[] = {
        {"greedy", {}},
        {"plain", {.temperature = 1}},
        {"top_k_top_p", {.temperature = 0.8f, .top_k = 50, .top_p = 0.95f}},
        {"logprobs", {.temperature = 1, .logprobs = 5}}};
    for (const auto& [name, spec] : cases) {
      const std::vector<SampleSpec> specs(kRows, spec);
      std::vector<TokenDraw> draws(kRows);
      const double seconds = BestSeconds([&] { backend_->Sample(draws, view, kVocab, specs); });
      Print(std::string("sample_") + name, seconds / kRows * 1e6, "us/row");
    }
  }

 private:
  std::unique_ptr<Backend> backend_;
  Ceilings ceilings_;
  size_t next_ = 0;
};

absl::Status RunOnCpu(int threads) {
  auto backend = MakeBackend(absl::GetFlag(FLAGS_backend), threads);
  if (!backend.ok()) return backend.status();
  KernelBench bench(*std::move(backend), threads);
  bench.MatMul(DType::kF32, WeightFormat::kAsIs);
  bench.MatMul(DType::kBF16, WeightFormat::kAsIs);
  bench.MatMul(DType::kF32, WeightFormat::kInt8);
  bench.MatMul(DType::kF32, WeightFormat::kInt4);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI8}) {
    bench.Attention(dtype, 1, /*prefill=*/false);
    bench.Attention(dtype, 16, /*prefill=*/false);
    bench.Attention(dtype, 256, /*prefill=*/true);
  }
  bench.Sampling();
  return absl::OkStatus();
}

absl::Status RunOnDevice() {
  const auto backend = MakeBackend(absl::GetFlag(FLAGS_backend), 1);
  if (!backend.ok()) return backend.status();
  return RunDeviceKernels(**backend, {}, absl::GetFlag(FLAGS_cases));
}

}  // namespace
}  // namespace catserve

// kernel_bench [--backend=NAME] [threads]: 0 or nothing for one per core. Status 3: there is no
// GPU.
int main(int argc, char** argv) {
  const std::vector<char*> arguments = absl::ParseCommandLine(argc, argv);
  int threads = arguments.size() > 1 ? std::atoi(arguments[1]) : 0;
  if (threads <= 0) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const bool device = absl::GetFlag(FLAGS_backend) == "cuda";
  const absl::Status status = device ? catserve::RunOnDevice() : catserve::RunOnCpu(threads);
  if (!status.ok()) std::cerr << "kernel_bench: " << status.message() << "\n";
  return catserve::ExitStatus(status);
}

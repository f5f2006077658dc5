#include "bench/device_kernels.h"

#include <algorithm>
#include <functional>
#include <iostream>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bench/random_numbers.h"

namespace catserve {
namespace {

constexpr int64_t kBlock = 1 << 16;  // random numbers that fill a buffer

// What one call of an operation reads and writes in memory at least, and computes.
struct Work {
  double bytes = 0;
  double operations = 0;
};

class DeviceKernels {
 public:
  DeviceKernels(Backend& backend, const DeviceKernelSizes& sizes, DeviceClock clock,
                const Ceilings& ceilings)
      : backend_(backend), sizes_(sizes), clock_(std::move(clock)), ceilings_(ceilings) {}

  void PrintHead();
  absl::Status DecodeAttention();
  absl::Status ChunkAttention();
  absl::Status Products();
  absl::Status Sampling();
  absl::Status RowOperations();
  const std::string& lines() const { return lines_; }

 private:
  // Sequences of `entries` entries each, all of them read by one row each, in one layer of several.
  struct Decode {
    std::string name;
    StackDescription stack;
    int32_t batch;
    int32_t entries;
    DType kv;
  };
  absl::Status RunDecode(const Decode& decode);
  absl::Status RunProduct(const std::string& name, int64_t outputs, int64_t inputs, DType dtype);

  absl::StatusOr<std::unique_ptr<Buffer>> Floats(int64_t count, float scale = 1.0f);
  // The time of `work`, which starts `calls` operations that each do `each`.
  void Measure(const std::string& name, const Work& each, int64_t calls,
               const std::function<void()>& work);

  Backend& backend_;
  const DeviceKernelSizes& sizes_;
  DeviceClock clock_;
  Ceilings ceilings_;
  std::string lines_;
};

void DeviceKernels::PrintHead() {
  absl::StrAppendFormat(&lines_, "copy_bandwidth=%.5g GB/s\nmatrix_rate=%.5g TFLOP/s\n",
                        ceilings_.read_bytes_per_second / 1e9, ceilings_.flops_per_second / 1e12);
  std::cout << absl::StrFormat(
      "%s: copies %.1f GB/s, multiplies %.1f TFLOP/s\n"
      "| operation                        |       us |    GB/s | of copy | TFLOP/s | of rate |\n"
      "|----------------------------------|----------|---------|---------|---------|---------|\n",
      backend_.Description(), ceilings_.read_bytes_per_second / 1e9,
      ceilings_.flops_per_second / 1e12);
}

void DeviceKernels::Measure(const std::string& name, const Work& each, int64_t calls,
                            const std::function<void()>& work) {
  const double seconds = clock_.SecondsOf(work) / static_cast<double>(calls);
  const double bandwidth = each.bytes / seconds, rate = each.operations / seconds;
  const double of_copy = bandwidth / ceilings_.read_bytes_per_second;
  const double of_rate = rate / ceilings_.flops_per_second;
  std::cout << absl::StrFormat("| %-32s | %8.2f | %7.1f | %6.1f%% | %7.2f | %6.1f%% |\n", name,
                               seconds * 1e6, bandwidth / 1e9, 100 * of_copy, rate / 1e12,
                               100 * of_rate)
            << std::flush;
  absl::StrAppendFormat(&lines_, "%s.time=%.5g us\n%s.floor_fraction=%.4g 1\n", name, seconds * 1e6,
                        name, std::max(of_copy, of_rate));
}

absl::StatusOr<std::unique_ptr<Buffer>> DeviceKernels::Floats(int64_t count, float scale) {
  const std::vector<float> block = RandomFloats(kBlock, scale);
  return FilledBuffer(backend_, count * SizeOf(DType::kF32), block.data(),
                      kBlock * SizeOf(DType::kF32));
}

absl::Status DeviceKernels::RunDecode(const Decode& decode) {
  const StackDescription& s = decode.stack;
  const int64_t width = int64_t{s.heads} * s.head_dim;
  const int32_t pages_each = (decode.entries + kKvPageEntries - 1) / kKvPageEntries;
  const int64_t pages = int64_t{decode.batch} * pages_each;
  const int64_t heads = pages * s.kv_heads * 2 * kKvPageEntries;
  const int64_t layer_bytes = heads * KvHeadBytes(s.head_dim, decode.kv);
  const int64_t layers =
      std::max<int64_t>(sizes_.layers, (sizes_.rotated_bytes + layer_bytes - 1) / layer_bytes);
  // The bits of BF16 numbers are as good as any for bytes.
  const std::vector<uint16_t> numbers = RandomBF16(kBlock, 1.0f);
  const std::vector<uint16_t> scales(kBlock, RandomBF16(1, 0.01f)[0]);
  std::vector<std::unique_ptr<Buffer>> buffers;
  std::vector<KvLayer> kv;
  for (int64_t i = 0; i < layers; ++i) {
    KvLayer layer{nullptr, decode.kv, pages, s.kv_heads, s.head_dim};
    const int64_t data_bytes = heads * s.head_dim * SizeOf(decode.kv);
    auto data = FilledBuffer(backend_, data_bytes, numbers.data(), 2 * kBlock);
    if (!data.ok()) return data.status();
    layer.data = (*data)->data();
    buffers.push_back(*std::move(data));
    if (const int64_t bytes = heads * KvScaleBytes(decode.kv); bytes > 0) {
      auto scale = FilledBuffer(backend_, bytes, scales.data(), 2 * kBlock);
      if (!scale.ok()) return scale.status();
      layer.scales = static_cast<uint16_t*>((*scale)->data());
      buffers.push_back(*std::move(scale));
    }
    kv.push_back(layer);
  }
  std::vector<int32_t> page_ids(pages);
  std::iota(page_ids.begin(), page_ids.end(), 0);
  std::shuffle(page_ids.begin(), page_ids.end(), std::mt19937(7));
  std::vector<AttentionRow> rows(decode.batch);
  for (int32_t i = 0; i < decode.batch; ++i) rows[i] = {0, 0, i * pages_each, decode.entries};
  auto q = Floats(decode.batch * width), out = Floats(decode.batch * width);
  if (!q.ok()) return q.status();
  if (!out.ok()) return out.status();
  const TensorView q_view((*q)->data(), DType::kF32, {decode.batch, width});
  const TensorView out_view((*out)->data(), DType::kF32, {decode.batch, width});
  const HeadSpec spec{.heads = s.heads, .kv_heads = s.kv_heads, .head_dim = s.head_dim};
  const double entries = static_cast<double>(decode.batch) * decode.entries;
  const Work each{
      entries * 2 * s.kv_heads * static_cast<double>(KvHeadBytes(s.head_dim, decode.kv)),
      entries * 4 * static_cast<double>(width)};
  Measure(absl::StrCat(decode.name, ".", Name(decode.kv)), each, layers, [&] {
    for (const KvLayer& layer : kv) {
      backend_.PagedAttention(out_view, q_view, spec, layer, rows, page_ids);
    }
  });
  return absl::OkStatus();
}

absl::Status DeviceKernels::DecodeAttention() {
  for (const DType kv : {DType::kBF16, DType::kI8, DType::kE4M3}) {
    if (!backend_.HoldsKv(kv)) continue;
    for (const int32_t chunk_size : sizes_.chunk_sizes) {
      const Decode decode{absl::StrCat("attention.batch", sizes_.batch, ".c", chunk_size),
                          sizes_.decoder, sizes_.batch, sizes_.tokens / chunk_size + 2, kv};
      if (auto status = RunDecode(decode); !status.ok()) return status;
    }
    const Decode twin{"attention.batch1.dense", sizes_.twin, 1, sizes_.tokens, kv};
    if (auto status = RunDecode(twin); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status DeviceKernels::ChunkAttention() {
  const StackDescription& s = sizes_.compressor;
  const int64_t width = int64_t{s.heads} * s.head_dim;
  for (const int32_t chunk_size : sizes_.chunk_sizes) {
    const int32_t rows_each = chunk_size + 2, chunks = sizes_.tokens / chunk_size;
    const int64_t rows = int64_t{chunks} * rows_each;
    std::vector<RowBlock> blocks(chunks);
    for (int32_t i = 0; i < chunks; ++i) blocks[i] = {i * rows_each, rows_each};
    auto qkv = Floats(rows * 3 * width), out = Floats(rows * width);
    if (!qkv.ok()) return qkv.status();
    if (!out.ok()) return out.status();
    const TensorView qkv_view((*qkv)->data(), DType::kF32, {rows, 3 * width});
    const TensorView out_view((*out)->data(), DType::kF32, {rows, width});
    const HeadSpec spec{.heads = s.heads, .kv_heads = s.heads, .head_dim = s.head_dim};
    const auto elements = static_cast<double>(rows * width);
    Measure(absl::StrCat("compressor_attention.c", chunk_size),
            {elements * 4 * sizeof(float), elements * 4 * rows_each}, 1,
            [&] { backend_.BlockAttention(out_view, qkv_view, spec, blocks); });
  }
  return absl::OkStatus();
}

absl::Status DeviceKernels::RunProduct(const std::string& name, int64_t outputs, int64_t inputs,
                                       DType dtype) {
  const WeightFormat format = dtype == DType::kI8 ? WeightFormat::kInt8 : WeightFormat::kAsIs;
  std::vector<uint16_t> host = RandomBF16(outputs * inputs, 0.05f);
  std::vector<std::unique_ptr<Matrix>> weights;
  for (int64_t bytes = 0; bytes < sizes_.rotated_bytes; bytes += weights.back()->bytes()) {
    auto packed = backend_.Pack({host.data(), DType::kBF16, {outputs, inputs}}, format);
    if (!packed.ok()) return packed.status();
    weights.push_back(*std::move(packed));
  }
  for (const int64_t rows : sizes_.product_rows) {
    if (dtype == DType::kI8 && rows > sizes_.product_rows[1]) break;  // eight rows at a time
    auto x = Floats(rows * inputs), out = Floats(rows * outputs);
    if (!x.ok()) return x.status();
    if (!out.ok()) return out.status();
    const TensorView x_view((*x)->data(), DType::kF32, {rows, inputs});
    const TensorView out_view((*out)->data(), DType::kF32, {rows, outputs});
    const Work each{static_cast<double>(weights[0]->bytes()),
                    2.0 * static_cast<double>(rows) * static_cast<double>(outputs * inputs)};
    Measure(absl::StrCat("product.", name, ".", Name(dtype), ".rows", rows), each,
            std::ssize(weights), [&] {
              for (const auto& w : weights) backend_.MatMul(out_view, x_view, *w, /*add=*/false);
            });
  }
  return absl::OkStatus();
}

absl::Status DeviceKernels::Products() {
  const StackDescription& s = sizes_.decoder;
  const int64_t dim = s.dim, feed_forward = s.feed_forward;
  const std::tuple<const char*, int64_t, int64_t, DType> products[] = {
      {"qkv", 3 * dim, dim, DType::kBF16},
      {"o", dim, dim, DType::kBF16},
      {"gate_up", 2 * feed_forward, dim, DType::kBF16},
      {"down", dim, feed_forward, DType::kBF16},
      {"output", sizes_.vocab_size, dim, DType::kBF16},
      {"gate_up", 2 * feed_forward, dim, DType::kI8}};
  for (const auto& [name, outputs, inputs, dtype] : products) {
    if (auto status = RunProduct(name, outputs, inputs, dtype); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status DeviceKernels::Sampling() {
  const int64_t rows = sizes_.product_rows.back();
  auto logits = Floats(rows * sizes_.vocab_size, 12.0f);
  if (!logits.ok()) return logits.status();
  const TensorView view((*logits)->data(), DType::kF32, {rows, sizes_.vocab_size});
  const std::pair<const char*, SampleSpec> cases[] = {
      {"greedy", {}},
      {"plain", {.temperature = 1}},
      {"top_k_top_p", {.temperature = 0.8f, .top_k = 50, .top_p = 0.95f}},
      {"logprobs", {.temperature = 1, .logprobs = 5}}};
  const auto elements = static_cast<double>(rows * sizes_.vocab_size);
  for (const auto& [name, spec] : cases) {
    const std::vector<SampleSpec> specs(rows, spec);
    std::vector<TokenDraw> draws(rows);
    Measure(absl::StrCat("sample.", name, ".rows", rows), {elements * sizeof(float), 0}, 1,
            [&] { backend_.Sample(draws, view, sizes_.vocab_size, specs); });
  }
  return absl::OkStatus();
}

absl::Status DeviceKernels::RowOperations() {
  const StackDescription& s = sizes_.decoder;
  const int64_t dim = s.dim, feed_forward = s.feed_forward;
  for (const int64_t rows : {sizes_.step_rows, sizes_.many_rows}) {
    auto x = Floats(rows * std::max(2 * feed_forward, 3 * dim));
    auto out = Floats(rows * std::max(feed_forward, dim));
    auto weight = Floats(dim), rotary = Floats(int64_t{s.head_dim} * 2);
    for (const auto* buffer : {&x, &out, &weight, &rotary}) {
      if (!buffer->ok()) return buffer->status();
    }
    const auto view = [](const absl::StatusOr<std::unique_ptr<Buffer>>& buffer, int64_t count,
                         int64_t width) {
      return TensorView((*buffer)->data(), DType::kF32, {count, width});
    };
    const auto bytes = [&](int64_t width) {
      return Work{static_cast<double>(rows * width) * sizeof(float), 0};
    };
    Measure(absl::StrCat("rms_norm.rows", rows), bytes(2 * dim), 1, [&] {
      backend_.RmsNorm(view(out, rows, dim), view(x, rows, dim),
                       TensorView((*weight)->data(), DType::kF32, {dim}), 1e-5f);
    });
    Measure(absl::StrCat("silu_gate.rows", rows), bytes(3 * feed_forward), 1, [&] {
      backend_.SiluGate(view(out, rows, feed_forward), view(x, rows, 2 * feed_forward));
    });
    const std::vector<GatherRow> gathered(rows);
    const TensorView tables[] = {view(x, 1, dim)};
    Measure(absl::StrCat("gather.rows", rows), bytes(2 * dim), 1,
            [&] { backend_.Gather(view(out, rows, dim), tables, {}, gathered); });
    const HeadSpec spec{.heads = s.heads,
                        .kv_heads = s.kv_heads,
                        .head_dim = s.head_dim,
                        .rotary = view(rotary, 2, s.head_dim)};
    const std::vector<int32_t> positions(rows, 1);
    Measure(absl::StrCat("rotate_heads.rows", rows), bytes(4 * dim), 1,
            [&] { backend_.PrepareHeads(view(x, rows, 3 * dim), spec, positions, nullptr, {}); });
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunDeviceKernels(Backend& backend, const DeviceKernelSizes& sizes,
                              const std::string& cases) {
  using Run = absl::Status (DeviceKernels::*)();
  const std::pair<const char*, std::vector<Run>> all[] = {
      {"ceilings", {}},
      {"attention", {&DeviceKernels::DecodeAttention, &DeviceKernels::ChunkAttention}},
      {"products", {&DeviceKernels::Products}},
      {"sampling", {&DeviceKernels::Sampling}},
      {"rows", {&DeviceKernels::RowOperations}}};
  std::string names;
  bool known = cases.empty();
  for (const auto& [name, runs] : all) {
    known = known || cases == name;
    absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  }
  if (!known) {
    return absl::InvalidArgumentError(absl::StrCat("--cases=", cases, " is not one of ", names));
  }
  auto clock = DeviceClock::Create(backend, sizes.probe);
  if (!clock.ok()) return clock.status();
  const absl::StatusOr<Ceilings> ceilings = clock->MeasureCeilings();
  if (!ceilings.ok()) return ceilings.status();
  DeviceKernels kernels(backend, sizes, *std::move(clock), *ceilings);
  kernels.PrintHead();
  for (const auto& [name, runs] : all) {
    if (!cases.empty() && cases != name) continue;
    for (const Run run : runs) {
      if (auto status = (kernels.*run)(); !status.ok()) return status;
    }
  }
  std::cout << "\n" << kernels.lines();
  return absl::OkStatus();
}

}  // namespace catserve

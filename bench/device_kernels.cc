#include "bench/device_kernels.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/device_table.h"
#include "bench/random_numbers.h"

namespace catserve {
namespace {

constexpr int64_t kBlock = 1 << 16;  // random numbers that fill a buffer

class DeviceKernels {
 public:
  DeviceKernels(Backend& backend, const DeviceKernelSizes& sizes, DeviceClock clock,
                DeviceTable& table)
      : backend_(backend), sizes_(sizes), clock_(std::move(clock)), table_(table) {}

  absl::Status DecodeAttention();
  absl::Status ChunkAttention();
  absl::Status Products();
  absl::Status Sampling();
  absl::Status RowOperations();

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
  // A weight of the decoder, and what its product does as the model asks for it.
  struct Product {
    const char* name;
    int64_t outputs;
    int64_t inputs;
    WeightFormat format = WeightFormat::kAsIs;
    bool wide = false;  // results of F32: sums, logits
    bool add = false;
  };
  absl::Status RunProduct(const Product& product);

  absl::StatusOr<std::unique_ptr<Buffer>> Floats(int64_t count, float scale = 1.0f);
  absl::StatusOr<std::unique_ptr<Buffer>> Activations(int64_t count, DType type);

  // Operations that are timed together: `work` starts `calls` of them, which each do `each`, in a
  // part of a step that recurs.
  struct Operation {
    std::string name;
    DeviceWork each;
    StepPart part;
    PartOf part_of = PartOf::kTry;
    int64_t calls = 1;
    std::string_view weights = "BF16";  // ModelDescription::weight_dtype, of a product
  };
  void Measure(const Operation& operation, const std::function<void()>& work);

  Backend& backend_;
  const DeviceKernelSizes& sizes_;
  DeviceClock clock_;
  DeviceTable& table_;
};

void DeviceKernels::Measure(const Operation& operation, const std::function<void()>& work) {
  Timing timing = clock_.TimeOf(work, operation.part, operation.part_of);
  timing.seconds /= static_cast<double>(operation.calls);
  table_.PrintRow(operation.name, operation.each, operation.weights, timing);
}

absl::StatusOr<std::unique_ptr<Buffer>> DeviceKernels::Floats(int64_t count, float scale) {
  const std::vector<float> block = RandomFloats(kBlock, scale);
  return FilledBuffer(backend_, count * SizeOf(DType::kF32), block.data(),
                      kBlock * SizeOf(DType::kF32));
}

absl::StatusOr<std::unique_ptr<Buffer>> DeviceKernels::Activations(int64_t count, DType type) {
  if (type == DType::kF32) return Floats(count);
  const std::vector<uint16_t> block = RandomBF16(kBlock, 1.0f);
  return FilledBuffer(backend_, count * SizeOf(type), block.data(), kBlock * SizeOf(type));
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
  constexpr DType kType = DType::kBF16;  // of activations, beside weights of 16 bits
  auto q = Activations(decode.batch * width, kType), out = Activations(decode.batch * width, kType);
  if (!q.ok()) return q.status();
  if (!out.ok()) return out.status();
  const TensorView q_view((*q)->data(), kType, {decode.batch, width});
  const TensorView out_view((*out)->data(), kType, {decode.batch, width});
  const HeadSpec spec{.heads = s.heads, .kv_heads = s.kv_heads, .head_dim = s.head_dim};
  const double entries = static_cast<double>(decode.batch) * decode.entries;
  const DeviceWork each{
      entries * 2 * s.kv_heads * static_cast<double>(KvHeadBytes(s.head_dim, decode.kv)),
      entries * 4 * static_cast<double>(width)};
  Measure({.name = absl::StrCat(decode.name, ".", Name(decode.kv)),
           .each = each,
           .part = {PartKind::kDecoder, decode.batch},
           .calls = layers},
          [&] {
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
                          sizes_.decoder, sizes_.batch, sizes_.tokens / chunk_size + chunk_size + 2,
                          kv};
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
    constexpr DType kType = DType::kBF16;
    auto qkv = Activations(rows * 3 * width, kType), out = Activations(rows * width, kType);
    if (!qkv.ok()) return qkv.status();
    if (!out.ok()) return out.status();
    const TensorView qkv_view((*qkv)->data(), kType, {rows, 3 * width});
    const TensorView out_view((*out)->data(), kType, {rows, width});
    const HeadSpec spec{.heads = s.heads, .kv_heads = s.heads, .head_dim = s.head_dim};
    const auto elements = static_cast<double>(rows * width);
    Measure({.name = absl::StrCat("compressor_attention.c", chunk_size),
             .each = {elements * 4 * SizeOf(kType), elements * 4 * rows_each},
             .part = {PartKind::kCompressor, static_cast<int32_t>(rows), chunk_size}},
            [&] { backend_.BlockAttention(out_view, qkv_view, spec, blocks); });
  }
  return absl::OkStatus();
}

absl::Status DeviceKernels::RunProduct(const Product& product) {
  const auto& [name, outputs, inputs, format, wide, adds] = product;
  const bool add = adds;  // clang 14 captures no bindings
  std::vector<uint16_t> host = RandomBF16(outputs * inputs, 0.05f);
  std::vector<std::unique_ptr<Matrix>> weights;
  for (int64_t bytes = 0; bytes < sizes_.rotated_bytes; bytes += weights.back()->bytes()) {
    auto packed = backend_.Pack({host.data(), DType::kBF16, {outputs, inputs}}, format);
    if (absl::IsUnimplemented(packed.status())) return absl::OkStatus();
    if (!packed.ok()) return packed.status();
    weights.push_back(*std::move(packed));
  }
  const DType type = weights[0]->activations(), results = wide ? DType::kF32 : type;
  const char* const held = WeightDtype(DType::kBF16, format);
  for (const int64_t rows : sizes_.product_rows) {
    // Eight rows at a time.
    if (format == WeightFormat::kInt8 && rows > sizes_.product_rows[1]) break;
    auto x = Activations(rows * inputs, type), out = Activations(rows * outputs, results);
    if (!x.ok()) return x.status();
    if (!out.ok()) return out.status();
    const TensorView x_view((*x)->data(), type, {rows, inputs});
    const TensorView out_view((*out)->data(), results, {rows, outputs});
    const DeviceWork each{static_cast<double>(weights[0]->bytes()),
                          2.0 * static_cast<double>(rows) * static_cast<double>(outputs * inputs)};
    Measure({.name = absl::StrCat("product.", name, ".", held, ".rows", rows),
             .each = each,
             .part = {PartKind::kDecoder, static_cast<int32_t>(rows)},
             .calls = std::ssize(weights),
             .weights = held},
            [&] {
              for (const auto& w : weights) backend_.MatMul(out_view, x_view, *w, add);
            });
  }
  return absl::OkStatus();
}

absl::Status DeviceKernels::Products() {
  const StackDescription& s = sizes_.decoder;
  const int64_t dim = s.dim, feed_forward = s.feed_forward;
  const Product products[] = {
      {"qkv", 3 * dim, dim},
      {.name = "o", .outputs = dim, .inputs = dim, .wide = true, .add = true},
      {"gate_up", 2 * feed_forward, dim},
      {.name = "down", .outputs = dim, .inputs = feed_forward, .wide = true, .add = true},
      {.name = "output", .outputs = sizes_.padded_vocab_size, .inputs = dim, .wide = true},
      {"gate_up", 2 * feed_forward, dim, WeightFormat::kInt8},
      {"gate_up", 2 * feed_forward, dim, WeightFormat::kE4M3}};
  for (const Product& product : products) {
    if (auto status = RunProduct(product); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status DeviceKernels::Sampling() {
  const int64_t rows = sizes_.product_rows.back();
  auto logits = Floats(rows * sizes_.padded_vocab_size, 12.0f);
  if (!logits.ok()) return logits.status();
  const TensorView view((*logits)->data(), DType::kF32, {rows, sizes_.padded_vocab_size});
  const std::pair<const char*, SampleSpec> cases[] = {
      {"greedy", {}},
      {"plain", {.temperature = 1}},
      {"top_k_top_p", {.temperature = 0.8f, .top_k = 50, .top_p = 0.95f}},
      {"logprobs", {.temperature = 1, .logprobs = 5}}};
  const auto elements = static_cast<double>(rows * sizes_.vocab_size);
  for (const auto& [name, spec] : cases) {
    const std::vector<SampleSpec> specs(rows, spec);
    std::vector<TokenDraw> draws(rows);
    // Fetching what was drawn ends a part.
    Measure({.name = absl::StrCat("sample.", name, ".rows", rows),
             .each = {elements * sizeof(float), 0},
             .part = {PartKind::kOutput, static_cast<int32_t>(rows)},
             .part_of = PartOf::kCall},
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
    const auto operation = [&](const char* name, int64_t width) {
      return Operation{.name = absl::StrCat(name, ".rows", rows),
                       .each = {static_cast<double>(rows * width) * sizeof(float), 0},
                       .part = {PartKind::kDecoder, static_cast<int32_t>(rows)}};
    };
    Measure(operation("rms_norm", 2 * dim), [&] {
      backend_.RmsNorm(view(out, rows, dim), view(x, rows, dim),
                       TensorView((*weight)->data(), DType::kF32, {dim}), 1e-5f);
    });
    Measure(operation("silu_gate", 3 * feed_forward), [&] {
      backend_.SiluGate(view(out, rows, feed_forward), view(x, rows, 2 * feed_forward));
    });
    const std::vector<GatherRow> gathered(rows);
    const TensorView tables[] = {view(x, 1, dim)};
    Measure(operation("gather", 2 * dim),
            [&] { backend_.Gather(view(out, rows, dim), tables, {}, gathered); });
    const HeadSpec spec{.heads = s.heads,
                        .kv_heads = s.kv_heads,
                        .head_dim = s.head_dim,
                        .rotary = view(rotary, 2, s.head_dim)};
    const std::vector<int32_t> positions(rows, 1);
    Measure(operation("rotate_heads", 4 * dim),
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
  DeviceTable table(*ceilings);
  table.PrintCeilings(backend.Description());
  DeviceKernels kernels(backend, sizes, *std::move(clock), table);
  for (const auto& [name, runs] : all) {
    if (runs.empty() || (!cases.empty() && cases != name)) continue;
    table.PrintHead();
    for (const Run run : runs) {
      if (auto status = (kernels.*run)(); !status.ok()) return status;
    }
    table.PrintFigures();
  }
  table.PrintReplayed();
  return absl::OkStatus();
}

}  // namespace catserve

#include "engine/model/weights.h"

#include <cmath>
#include <initializer_list>
#include <optional>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/convert.h"
#include "engine/model/tensor_names.h"

namespace catserve {
namespace {

using Shape = std::initializer_list<int64_t>;

// A tensor whose rows become a part of a matrix.
struct Part {
  std::string name;
  int64_t rows;
};

WeightFormat FormatOf(WeightType type) {
  if (type == WeightType::kI8) return WeightFormat::kInt8;
  if (type == WeightType::kE4M3) return WeightFormat::kE4M3;
  return type == WeightType::kI4 ? WeightFormat::kInt4 : WeightFormat::kAsIs;
}

// Loads one tensor after another and keeps the first error; after it, every load is empty.
class Loader {
 public:
  Loader(Checkpoint& checkpoint, Backend& backend, WeightType type)
      : checkpoint_(checkpoint), backend_(backend), type_(type) {}

  // A table as stored.
  Table Embedding(const std::string& name, Shape shape) { return Upload(Find(name, shape).view); }

  // A norm's weights [size] in F32.
  Table Norm(const std::string& name, int64_t size) {
    const HostTensor stored = Find(name, {size});
    return status_.ok() ? Upload(ConvertTo(stored.view, DType::kF32).view) : Table{};
  }

  std::unique_ptr<Matrix> Weight(const std::string& name, Shape shape) {
    const HostTensor stored = Find(name, shape);
    return status_.ok() ? Pack(stored.view) : nullptr;
  }

  // One matrix of the rows of all parts, in their order.
  std::unique_ptr<Matrix> Joined(std::span<const Part> parts, int64_t columns) {
    std::vector<HostTensor> stored;
    std::vector<TensorView> views;
    bool same = true;
    for (const Part& part : parts) {
      stored.push_back(Find(part.name, {part.rows, columns}));
      views.push_back(stored.back().view);
      same = same && views.back().dtype == views.front().dtype;
    }
    if (!status_.ok()) return nullptr;
    if (views.size() == 1) return Pack(views[0]);
    for (size_t i = 0; i < views.size() && !same; ++i) {
      if (views[i].dtype != DType::kF32) stored[i] = ConvertTo(views[i], DType::kF32);
      views[i] = stored[i].view;
    }
    return Pack(StackRows(views).view);
  }

  // W_p for each chunk size, from the F32 values of W.
  std::map<int32_t, std::unique_ptr<Matrix>> Projections(const std::string& name,
                                                         const ModelConfig& config) {
    const int64_t dim = config.decoder.dim;
    const int64_t fx_dim = config.compressor.dim;
    const HostTensor stored = Find(name, {dim, config.chunk_size_max * fx_dim});
    const TensorView& w = stored.view;
    std::map<int32_t, std::unique_ptr<Matrix>> projections;
    for (const int32_t chunk_size : config.chunk_sizes) {
      if (!status_.ok()) break;
      if (chunk_size == config.chunk_size_max) {
        projections[chunk_size] = Pack(w);
        continue;
      }
      std::vector<float> resampled = ResampleColumns(w, config.chunk_size_max, chunk_size);
      projections[chunk_size] =
          Pack({resampled.data(), DType::kF32, {dim, chunk_size * fx_dim}}, w.dtype);
    }
    return projections;
  }

  Table Upload(const TensorView& host) {
    Table table;
    if (!status_.ok()) return table;
    absl::StatusOr<std::unique_ptr<Buffer>> buffer = backend_.Upload(host);
    if (!buffer.ok()) {
      status_ = buffer.status();
      return table;
    }
    table.buffer = *std::move(buffer);
    table.view = host;
    table.view.data = table.buffer->data();
    return table;
  }

  const absl::Status& status() const { return status_; }

 private:
  HostTensor Find(const std::string& name, Shape shape) {
    if (!status_.ok()) return {};
    absl::StatusOr<HostTensor> tensor = checkpoint_.Tensor(name, shape);
    if (!tensor.ok()) {
      status_ = tensor.status();
      return {};
    }
    return *std::move(tensor);
  }

  std::unique_ptr<Matrix> Pack(const TensorView& host) { return Pack(host, host.dtype); }

  // `stored`: the format that the file holds the values in.
  std::unique_ptr<Matrix> Pack(const TensorView& host, DType stored) {
    const WeightFormat format = FormatOf(type_);
    DType dtype = type_ == WeightType::kF32 ? DType::kF32 : stored;
    if (type_ == WeightType::kBF16) dtype = DType::kBF16;
    if (type_ == WeightType::kF16) dtype = DType::kF16;
    if (format != WeightFormat::kAsIs) dtype = host.dtype;  // from the values themselves
    const HostTensor converted = ConvertTo(host, dtype);
    absl::StatusOr<std::unique_ptr<Matrix>> matrix = backend_.Pack(converted.view, format);
    if (!matrix.ok()) {
      status_ = matrix.status();
      return nullptr;
    }
    return *std::move(matrix);
  }

  Checkpoint& checkpoint_;
  Backend& backend_;
  WeightType type_;
  absl::Status status_;
};

LayerWeights LoadLayer(Loader& loader, const StackConfig& stack, const LayerNames& names,
                       const std::string& prefix) {
  const auto name = [&](const char* rest) { return absl::StrCat(prefix, rest, ".weight"); };
  const int64_t head = stack.head_dim;
  LayerWeights layer;
  layer.attention_norm = loader.Norm(name(names.attention_norm), stack.dim);
  if (names.qkv != nullptr) {
    layer.wqkv = loader.Weight(name(names.qkv), {stack.qkv_width(), stack.dim});
  } else {
    const Part parts[] = {{name(names.q), stack.heads * head},
                          {name(names.k), stack.kv_heads * head},
                          {name(names.v), stack.kv_heads * head}};
    layer.wqkv = loader.Joined(parts, stack.dim);
  }
  if (stack.qk_norm) {
    layer.q_norm = loader.Norm(name(names.q_norm), stack.head_dim);
    layer.k_norm = loader.Norm(name(names.k_norm), stack.head_dim);
  }
  layer.wo = loader.Weight(name(names.o), {stack.dim, stack.dim});
  layer.ffn_norm = loader.Norm(name(names.ffn_norm), stack.dim);
  const Part gate_up[] = {{name(names.gate), stack.feed_forward},
                          {name(names.up), stack.feed_forward}};
  layer.gate_up = loader.Joined(gate_up, stack.dim);
  layer.down = loader.Weight(name(names.down), {stack.dim, stack.feed_forward});
  return layer;
}

// What the products of all layers read as it is: F32 unless they agree.
DType ActivationsOf(const std::vector<LayerWeights>& layers) {
  std::optional<DType> common;
  for (const LayerWeights& layer : layers) {
    for (const Matrix* w :
         {layer.wqkv.get(), layer.wo.get(), layer.gate_up.get(), layer.down.get()}) {
      if (common.value_or(w->activations()) != w->activations()) return DType::kF32;
      common = w->activations();
    }
  }
  return common.value_or(DType::kF32);
}

StackWeights LoadStack(Loader& loader, const StackConfig& stack, const StackNames& names,
                       int32_t positions) {
  StackWeights weights;
  for (int32_t i = 0; i < stack.layers && loader.status().ok(); ++i) {
    const std::string prefix = absl::StrCat(names.prefix, "layers.", i, ".");
    weights.layers.push_back(LoadLayer(loader, stack, names.layer, prefix));
  }
  weights.norm = loader.Norm(absl::StrCat(names.prefix, "norm.weight"), stack.dim);
  if (!loader.status().ok()) return weights;
  weights.activations = ActivationsOf(weights.layers);
  std::vector<float> rotary = RotaryTable(positions, stack.head_dim, stack.rope_base);
  weights.rotary = loader.Upload({rotary.data(), DType::kF32, {positions, stack.head_dim}});
  return weights;
}

CompressorWeights LoadCompressor(Loader& loader, const ModelConfig& config,
                                 const TensorNames& names) {
  const int64_t dim = config.compressor.dim;
  const bool fixed = config.kind == ModelKind::kCatFixed;
  const int64_t chunks = fixed ? config.block_size / config.chunk_size_max : config.block_size;
  CompressorWeights weights;
  weights.tokens = loader.Embedding(names.chunk_tokens, {config.padded_vocab_size, dim});
  weights.positions = loader.Embedding(names.chunk_positions, {chunks, dim});
  if (!fixed) {
    weights.levels = loader.Embedding(names.chunk_levels, {config.chunk_size_levels(), dim});
  }
  weights.stack =
      LoadStack(loader, config.compressor, names.compressor, config.compressor_positions());
  weights.projections = loader.Projections(names.projection, config);
  return weights;
}

const char* MatrixTypeName(WeightType type, DType stored) {
  switch (type) {
    case WeightType::kAsStored: return Name(stored);
    case WeightType::kF32: return Name(DType::kF32);
    case WeightType::kBF16: return Name(DType::kBF16);
    case WeightType::kF16: return Name(DType::kF16);
    case WeightType::kI8: return Name(DType::kI8);
    case WeightType::kE4M3: return Name(DType::kE4M3);
    case WeightType::kI4: break;
  }
  return "I4";
}

}  // namespace

int64_t StackWeights::matrix_bytes() const {
  int64_t bytes = 0;
  for (const LayerWeights& layer : layers) {
    bytes += layer.wqkv->bytes() + layer.wo->bytes() + layer.gate_up->bytes() + layer.down->bytes();
  }
  return bytes;
}

absl::StatusOr<ModelWeights> LoadWeights(Checkpoint& checkpoint, const ModelConfig& config,
                                         Backend& backend, WeightType type) {
  const int64_t dim = config.decoder.dim;
  const int64_t vocab = config.padded_vocab_size;
  const TensorNames& names = NamesOf(config.layout);
  Loader loader(checkpoint, backend, type);
  ModelWeights weights;
  weights.tokens = loader.Embedding(names.tokens, {vocab, dim});
  if (config.compresses()) {
    weights.firsts = loader.Embedding(names.firsts, {config.chunk_size_levels(), dim});
  }
  if (config.kind == ModelKind::kCat) {
    weights.separator = loader.Embedding(names.separator, {1, dim});
  }
  weights.stack = LoadStack(loader, config.decoder, names.decoder, config.decoder_positions());
  const std::string output_name = config.tied_output ? names.tokens : names.output;
  weights.output = loader.Weight(output_name, {vocab, dim});
  if (config.compresses() && loader.status().ok()) {
    weights.compressor = LoadCompressor(loader, config, names);
  }
  if (!loader.status().ok()) return loader.status();
  weights.dtype = MatrixTypeName(type, checkpoint.StoredType(output_name));
  return weights;
}

std::vector<float> ResampleColumns(const TensorView& w, int32_t chunk_size_max,
                                   int32_t chunk_size) {
  const int64_t columns = w.shape[1] / chunk_size_max * chunk_size;
  // Column j lies at (j + 1/2) C_max / C - 1/2 of w: a whole number and `rest` parts of 2 C, exact.
  const int64_t parts = 2 * int64_t{chunk_size};
  const int64_t step = 2 * int64_t{chunk_size_max};  // from column to column
  std::vector<float> weight(static_cast<size_t>(parts));
  for (int64_t i = 0; i < parts; ++i) weight[i] = static_cast<float>(i) / parts;

  std::vector<float> resampled;
  resampled.reserve(static_cast<size_t>(w.rows() * columns));
  for (int64_t i = 0; i < w.rows(); ++i) {
    const HostTensor values = ConvertTo(w.Rows(i, 1), DType::kF32);
    const float* row = values.view.row<const float>(0);
    int64_t left = (chunk_size_max - chunk_size) / parts;
    int64_t rest = (chunk_size_max - chunk_size) % parts;
    for (int64_t j = 0; j < columns; ++j) {
      const float right = rest == 0 ? 0 : weight[rest] * row[left + 1];
      resampled.push_back((1 - weight[rest]) * row[left] + right);
      left += step / parts;
      rest += step % parts;
      if (rest >= parts) {
        rest -= parts;
        ++left;
      }
    }
  }
  return resampled;
}

std::vector<float> RotaryTable(int32_t positions, int32_t head_dim, double base) {
  const int32_t half = head_dim / 2;
  std::vector<float> table(static_cast<size_t>(positions) * head_dim);
  for (int32_t position = 0; position < positions; ++position) {
    float* row = table.data() + static_cast<size_t>(position) * head_dim;
    for (int32_t i = 0; i < half; ++i) {
      const double angle = position * std::pow(base, -2.0 * i / head_dim);
      row[i] = static_cast<float>(std::cos(angle));
      row[half + i] = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

}  // namespace catserve

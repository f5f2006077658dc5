#include "engine/model/weights.h"

#include <cmath>
#include <initializer_list>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/convert.h"

namespace catserve {
namespace {

using Shape = std::initializer_list<int64_t>;

// Loads one tensor after another and keeps the first error; after it, every load is empty.
class Loader {
 public:
  Loader(Checkpoint& checkpoint, Backend& backend, WeightType type)
      : checkpoint_(checkpoint), backend_(backend), type_(type) {}

  // A table as stored.
  Table Embedding(const std::string& name, Shape shape) { return Upload(Find(name, shape)); }

  // A norm's weights [size] in F32.
  Table Norm(const std::string& name, int64_t size) {
    const TensorView stored = Find(name, {size});
    return status_.ok() ? Upload(ConvertTo(stored, DType::kF32).view) : Table{};
  }

  std::unique_ptr<Matrix> Weight(const std::string& name, Shape shape) {
    const TensorView stored = Find(name, shape);
    return status_.ok() ? Pack(stored) : nullptr;
  }

  // The rows of one matrix, then those of another of the same shape.
  std::unique_ptr<Matrix> Stacked(const std::string& first_name, const std::string& second_name,
                                  Shape shape) {
    const TensorView first = Find(first_name, shape);
    const TensorView second = Find(second_name, shape);
    if (!status_.ok()) return nullptr;
    if (first.dtype == second.dtype) return Pack(StackRows(first, second).view);
    const HostTensor first_f32 = ConvertTo(first, DType::kF32);
    const HostTensor second_f32 = ConvertTo(second, DType::kF32);
    return Pack(StackRows(first_f32.view, second_f32.view).view);
  }

  // W_p for each chunk size, from the F32 values of W.
  std::map<int32_t, std::unique_ptr<Matrix>> Projections(const ModelConfig& config) {
    const int64_t dim = config.decoder.dim;
    const int64_t fx_dim = config.compressor.dim;
    const TensorView w = Find("f.proj_fx.weight", {dim, config.chunk_size_max * fx_dim});
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
  TensorView Find(const std::string& name, Shape shape) {
    if (!status_.ok()) return {};
    absl::StatusOr<TensorView> tensor = checkpoint_.Tensor(name, shape);
    if (!tensor.ok()) {
      status_ = tensor.status();
      return {};
    }
    return *tensor;
  }

  std::unique_ptr<Matrix> Pack(const TensorView& host) { return Pack(host, host.dtype); }

  // `stored`: the format that the file holds the values in.
  std::unique_ptr<Matrix> Pack(const TensorView& host, DType stored) {
    DType dtype = type_ == WeightType::kAsStored ? stored : DType::kF32;
    if (type_ == WeightType::kBF16) dtype = DType::kBF16;
    if (dtype == DType::kF16 && host.dtype != DType::kF16) dtype = DType::kF32;
    const HostTensor converted = ConvertTo(host, dtype);
    absl::StatusOr<std::unique_ptr<Matrix>> matrix = backend_.Pack(converted.view);
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

LayerWeights LoadLayer(Loader& loader, const StackConfig& stack, const std::string& prefix) {
  const auto name = [&](const char* rest) { return absl::StrCat(prefix, rest); };
  LayerWeights layer;
  layer.attention_norm = loader.Norm(name("attention_norm.weight"), stack.dim);
  layer.wqkv = loader.Weight(name("attention.wqkv.weight"), {stack.qkv_width(), stack.dim});
  if (stack.qk_norm) {
    layer.q_norm = loader.Norm(name("attention.q_norm.weight"), stack.head_dim);
    layer.k_norm = loader.Norm(name("attention.k_norm.weight"), stack.head_dim);
  }
  layer.wo = loader.Weight(name("attention.wo.weight"), {stack.dim, stack.dim});
  layer.ffn_norm = loader.Norm(name("ffn_norm.weight"), stack.dim);
  layer.gate_up = loader.Stacked(name("feed_forward.fc_1.weight"), name("feed_forward.fc_2.weight"),
                                 {stack.feed_forward, stack.dim});
  layer.down = loader.Weight(name("feed_forward.proj.weight"), {stack.dim, stack.feed_forward});
  return layer;
}

StackWeights LoadStack(Loader& loader, const StackConfig& stack, const std::string& prefix,
                       int32_t positions) {
  StackWeights weights;
  for (int32_t i = 0; i < stack.layers && loader.status().ok(); ++i) {
    weights.layers.push_back(LoadLayer(loader, stack, absl::StrCat(prefix, "layers.", i, ".")));
  }
  weights.norm = loader.Norm(absl::StrCat(prefix, "norm.weight"), stack.dim);
  if (!loader.status().ok()) return weights;
  std::vector<float> rotary = RotaryTable(positions, stack.head_dim, stack.rope_base);
  weights.rotary = loader.Upload({rotary.data(), DType::kF32, {positions, stack.head_dim}});
  return weights;
}

CompressorWeights LoadCompressor(Loader& loader, const ModelConfig& config) {
  const int64_t dim = config.compressor.dim;
  const bool fixed = config.kind == ModelKind::kCatFixed;
  const int64_t chunks = fixed ? config.block_size / config.chunk_size_max : config.block_size;
  CompressorWeights weights;
  weights.tokens = loader.Embedding("f.wte.weight", {config.padded_vocab_size, dim});
  weights.positions = loader.Embedding("f.pos_tokens.weight", {chunks, dim});
  if (!fixed) {
    weights.levels = loader.Embedding("f.adaptive_token.weight", {config.chunk_size_levels(), dim});
  }
  weights.stack = LoadStack(loader, config.compressor, "f.", config.compressor_positions());
  weights.projections = loader.Projections(config);
  return weights;
}

const char* MatrixTypeName(WeightType type, DType stored) {
  if (type == WeightType::kAsStored) return Name(stored);
  return Name(type == WeightType::kBF16 ? DType::kBF16 : DType::kF32);
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
  Loader loader(checkpoint, backend, type);
  ModelWeights weights;
  weights.tokens = loader.Embedding("wte.weight", {vocab, dim});
  if (config.compresses()) {
    weights.firsts = loader.Embedding("dummy_fx.weight", {config.chunk_size_levels(), dim});
  }
  if (config.kind == ModelKind::kCat) {
    weights.separator = loader.Embedding("seperator.weight", {1, dim});
  }
  weights.stack = LoadStack(loader, config.decoder, "", config.decoder_positions());
  weights.output = loader.Weight("output.weight", {vocab, dim});
  if (config.compresses() && loader.status().ok()) {
    weights.compressor = LoadCompressor(loader, config);
  }
  if (!loader.status().ok()) return loader.status();
  const absl::StatusOr<TensorView> output = checkpoint.Tensor("output.weight", {vocab, dim});
  weights.dtype = MatrixTypeName(type, output->dtype);
  return weights;
}

std::vector<float> ResampleColumns(const TensorView& w, int32_t chunk_size_max,
                                   int32_t chunk_size) {
  const int64_t step = chunk_size_max / chunk_size;  // s in the equations
  const int64_t columns = w.shape[1] / step;
  std::vector<float> resampled;
  resampled.reserve(static_cast<size_t>(w.rows() * columns));
  for (int64_t i = 0; i < w.rows(); ++i) {
    const HostTensor values = ConvertTo(w.Rows(i, 1), DType::kF32);
    const float* row = values.view.row<const float>(0);
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t right = step * j + step / 2;
      resampled.push_back(step == 1 ? row[j] : (row[right - 1] + row[right]) / 2);
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

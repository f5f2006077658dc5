#include "engine/model/transformer.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace catserve {
namespace {

constexpr bool kSet = false;  // out = W x
constexpr bool kAdd = true;   // out += W x

// Hands out consecutive pieces of a workspace, each on a cache line of its own.
class Carver {
 public:
  explicit Carver(void* data) : data_(static_cast<std::byte*>(data)) {}

  TensorView Take(DType dtype, int64_t rows, int64_t columns) {
    const TensorView view(data_ + used_, dtype, {rows, columns});
    used_ += (rows * columns * SizeOf(dtype) + 255) / 256 * 256;
    most_ = std::max(most_, used_);
    return view;
  }
  int64_t used() const { return used_; }
  void BackTo(int64_t used) { used_ = used; }
  int64_t most() const { return most_; }  // bytes that were ever used

 private:
  std::byte* data_;
  int64_t used_ = 0;
  int64_t most_ = 0;
};

Activations Carve(Carver& carver, const StackLayout& layout, int64_t rows) {
  const StackConfig& stack = *layout.config;
  const DType type = layout.activations;
  Activations a;
  a.x = carver.Take(DType::kF32, rows, stack.dim);
  a.h = carver.Take(type, rows, stack.dim);
  const int64_t after_h = carver.used();
  a.qkv = carver.Take(type, rows, stack.qkv_width());
  a.gate_up = carver.Take(type, rows, int64_t{2} * stack.feed_forward);
  a.gated = carver.Take(type, rows, stack.feed_forward);
  carver.BackTo(after_h);
  a.z = carver.Take(DType::kF32, rows, stack.dim);
  return a;
}

}  // namespace

absl::StatusOr<Workspace> Workspace::Create(Backend& backend,
                                            std::initializer_list<StackLayout> stacks,
                                            int64_t rows_max) {
  int64_t bytes = 0;
  for (const StackLayout& stack : stacks) {
    Carver measure(nullptr);
    Carve(measure, stack, rows_max);
    bytes = std::max(bytes, measure.most());
  }
  absl::StatusOr<std::unique_ptr<Buffer>> buffer = backend.Allocate(bytes);
  if (!buffer.ok()) {
    return absl::Status(buffer.status().code(), absl::StrCat("activations of ", rows_max,
                                                             " rows: ", buffer.status().message()));
  }
  Workspace workspace;
  workspace.buffer_ = *std::move(buffer);
  workspace.rows_max_ = rows_max;
  return workspace;
}

Activations Workspace::For(const StackLayout& stack, int64_t rows) const {
  CATSERVE_CHECK(rows <= rows_max_)
      << rows << " rows in a workspace for " << rows_max_ << ": the plan exceeds step_rows_max";
  Carver carver(buffer_->data());
  return Carve(carver, stack, rows);
}

Transformer::Transformer(Backend& backend, const StackConfig& config, const StackWeights& weights)
    : backend_(backend), config_(config), weights_(weights) {
  for (const LayerWeights& layer : weights.layers) {
    heads_.push_back({.heads = config.heads,
                      .kv_heads = config.kv_heads,
                      .head_dim = config.head_dim,
                      .norm_eps = config.qk_norm_eps,
                      .q_norm = layer.q_norm.view,
                      .k_norm = layer.k_norm.view,
                      .rotary = weights.rotary.view});
  }
}

void Transformer::Run(const Activations& a, Attend attend) const {
  for (int32_t layer = 0; layer < config_.layers; ++layer) Layer(layer, a, attend);
}

void Transformer::Layer(int32_t layer, const Activations& a, Attend attend) const {
  const LayerWeights& w = weights_.layers[layer];

  backend_.RmsNorm(a.h, a.x, w.attention_norm.view, config_.norm_eps);
  backend_.MatMul(a.qkv, a.h, *w.wqkv, kSet);
  attend(layer, heads_[layer], a.h, a.qkv);
  backend_.MatMul(a.x, a.h, *w.wo, kAdd);

  backend_.RmsNorm(a.h, a.x, w.ffn_norm.view, config_.norm_eps);
  backend_.MatMul(a.gate_up, a.h, *w.gate_up, kSet);
  backend_.SiluGate(a.gated, a.gate_up);
  backend_.MatMul(a.x, a.gated, *w.down, kAdd);
}

void Transformer::Norm(const TensorView& out, const TensorView& x) const {
  backend_.RmsNorm(out, x, weights_.norm.view, config_.norm_eps);
}

}  // namespace catserve

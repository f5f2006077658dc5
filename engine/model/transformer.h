// The layers that the decoder, the compressor and a dense model share (golden README, section 2).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "engine/model/config.h"
#include "engine/model/weights.h"
#include "kernels/backend.h"

namespace catserve {

// The shape of a stack, and the type of what lies between its products.
struct StackLayout {
  const StackConfig* config;
  DType activations = DType::kF32;
};

// What a stack computes with, for some number of rows. Views of one workspace.
struct Activations {
  TensorView x;        // [rows, dim] F32: the residual stream
  TensorView h;        // [rows, dim]: normed rows, then the heads' output
  TensorView qkv;      // [rows, (heads + 2 kv_heads) * head_dim]
  TensorView gate_up;  // [rows, 2 feed_forward]
  TensorView gated;    // [rows, feed_forward]
  TensorView z;        // [rows, dim] F32, for after the last layer: over qkv and what follows it
};

// Device memory for the activations of one stack at a time, taken once.
class Workspace {
 public:
  // Room for `rows_max` rows of each of the stacks. Errors: RESOURCE_EXHAUSTED.
  static absl::StatusOr<Workspace> Create(Backend& backend,
                                          std::initializer_list<StackLayout> stacks,
                                          int64_t rows_max);

  // Views that share memory with those of any earlier call. REQUIRES: rows <= rows_max().
  Activations For(const StackLayout& stack, int64_t rows) const;
  int64_t rows_max() const { return rows_max_; }

 private:
  std::unique_ptr<Buffer> buffer_;
  int64_t rows_max_ = 0;
};

// A stack of layers without its input rows and its final norm. Stateless between calls.
class Transformer {
 public:
  // Prepares the heads of qkv for layer `layer`, attends, and writes the heads' output to out.
  using Attend = absl::FunctionRef<void(int32_t layer, const HeadSpec& heads, const TensorView& out,
                                        const TensorView& qkv)>;

  // REQUIRES: all three outlive the transformer.
  Transformer(Backend& backend, const StackConfig& config, const StackWeights& weights);

  // Runs a.x through every layer, in place.
  void Run(const Activations& a, Attend attend) const;

  // The layout of its activations.
  StackLayout layout() const { return {&config_, weights_.activations}; }

  // The final norm. out may be x, or have another type.
  void Norm(const TensorView& out, const TensorView& x) const;

 private:
  void Layer(int32_t layer, const Activations& a, Attend attend) const;

  Backend& backend_;
  const StackConfig& config_;
  const StackWeights& weights_;
  std::vector<HeadSpec> heads_;  // of each layer
};

}  // namespace catserve

// Launches of the operations on rows.
#include "kernels/cuda/block_attention.cuh"
#include "kernels/cuda/gather.cuh"
#include "kernels/cuda/narrow_rows.cuh"
#include "kernels/cuda/prepare_heads.cuh"
#include "kernels/cuda/quantize_rows.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/cuda/silu_gate.cuh"

namespace catserve::cuda {
namespace {

// An instance for each type of activations.
template <typename Args>
using Kernel = void (*)(Args);
template <typename Args>
Kernel<Args> Choose(DType type, Kernel<Args> f32, Kernel<Args> bf16, Kernel<Args> f16) {
  return type == DType::kF32 ? f32 : type == DType::kBF16 ? bf16 : f16;
}

template <typename T>
Kernel<BlockAttentionArgs> BlockAttentionFor(const BlockAttentionArgs& args) {
  constexpr int64_t kVector = 16 / sizeof(T);
  if (args.stride % kVector != 0 || args.head_dim % 8 != 0) {
    return BlockAttention<T, NarrowLayout<T>>;
  }
  return args.head_dim == 64 ? BlockAttention<T, TileLayout<T, 64, true>>
                             : BlockAttention<T, TileLayout<T, 256, false>>;
}

}  // namespace

void LaunchGather(const GatherArgs& args, int items, Stream stream) {
  if (items > 0) Launch(Gather, GatherShape(items), args, stream);
}

void LaunchRmsNorm(const RmsNormArgs& args, DType type, Stream stream) {
  const auto kernel = Choose<RmsNormArgs>(type, RmsNorm<float>, RmsNorm<BF16>, RmsNorm<F16>);
  if (args.rows > 0) Launch(kernel, RmsNormShape(args), args, stream);
}

void LaunchSiluGate(const SiluGateArgs& args, DType type, Stream stream) {
  const auto kernel = Choose<SiluGateArgs>(type, SiluGate<float>, SiluGate<BF16>, SiluGate<F16>);
  if (args.rows > 0) Launch(kernel, SiluGateShape(args), args, stream);
}

void LaunchNarrowRows(const NarrowRowsArgs& args, DType type, Stream stream) {
  const auto kernel = type == DType::kBF16 ? NarrowRows<BF16> : NarrowRows<F16>;
  if (args.rows > 0) Launch(kernel, NarrowRowsShape(args), args, stream);
}

void LaunchQuantizeRows(const QuantizeRowsArgs& args, Stream stream) {
  if (args.rows > 0) Launch(QuantizeRows, QuantizeRowsShape(args), args, stream);
}

void LaunchPrepareHeads(const PrepareHeadsArgs& args, int rows, DType kv, Stream stream) {
  auto kernel = PrepareHeads<float>;
  if (kv == DType::kBF16) kernel = PrepareHeads<BF16>;
  if (kv == DType::kI8) kernel = PrepareHeads<I8>;
  if (kv == DType::kE4M3) kernel = PrepareHeads<E4M3>;
  if (rows > 0) Launch(kernel, PrepareHeadsShape(args, rows), args, stream);
}

void LaunchBlockAttention(const BlockAttentionArgs& args, int rows, DType type, Stream stream) {
  const auto kernel =
      Choose<BlockAttentionArgs>(type, BlockAttentionFor<float>(args),
                                 BlockAttentionFor<BF16>(args), BlockAttentionFor<F16>(args));
  if (rows > 0) Launch(kernel, BlockAttentionShape(args, rows), args, stream);
}

}  // namespace catserve::cuda

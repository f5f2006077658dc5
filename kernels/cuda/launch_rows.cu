// Launches of the operations on rows.
#include "kernels/cuda/block_attention.cuh"
#include "kernels/cuda/gather.cuh"
#include "kernels/cuda/narrow_rows.cuh"
#include "kernels/cuda/prepare_heads.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/cuda/silu_gate.cuh"

namespace catserve::cuda {

void LaunchGather(const GatherArgs& args, int items, Stream stream) {
  if (items > 0) Launch(Gather, GatherShape(items), args, stream);
}

void LaunchRmsNorm(const RmsNormArgs& args, Stream stream) {
  if (args.rows > 0) Launch(RmsNorm<float>, RmsNormShape(args), args, stream);
}

void LaunchSiluGate(const SiluGateArgs& args, Stream stream) {
  if (args.rows > 0) Launch(SiluGate<float>, SiluGateShape(args), args, stream);
}

void LaunchNarrowRows(const NarrowRowsArgs& args, DType type, Stream stream) {
  const auto kernel = type == DType::kBF16 ? NarrowRows<BF16> : NarrowRows<F16>;
  if (args.rows > 0) Launch(kernel, NarrowRowsShape(args), args, stream);
}

void LaunchPrepareHeads(const PrepareHeadsArgs& args, int rows, DType kv, Stream stream) {
  auto kernel = PrepareHeads<float, float>;
  if (kv == DType::kBF16) kernel = PrepareHeads<float, BF16>;
  if (kv == DType::kI8) kernel = PrepareHeads<float, I8>;
  if (kv == DType::kE4M3) kernel = PrepareHeads<float, E4M3>;
  if (rows > 0) Launch(kernel, PrepareHeadsShape(args, rows), args, stream);
}

void LaunchBlockAttention(const BlockAttentionArgs& args, int rows, Stream stream) {
  auto kernel = BlockAttention<float, NarrowLayout<float>>;
  if (args.stride % 4 == 0 && args.head_dim % 8 == 0) {
    kernel = args.head_dim == 64 ? BlockAttention<float, TileLayout<float, 64, true>>
                                 : BlockAttention<float, TileLayout<float, 256, false>>;
  }
  if (rows > 0) Launch(kernel, BlockAttentionShape(args, rows), args, stream);
}

}  // namespace catserve::cuda

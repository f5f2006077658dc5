// Launches of paged attention. For rows: by the type of KV memory, the size of heads, how many of
// them share a warp and how many warps share a row; sizes of heads that are not tuned, and F32,
// have one head to a warp (HeadsPerWarp). For pieces: by the type and the size.
#include "kernels/cuda/attention_combine.cuh"
#include "kernels/cuda/paged_attention_decode.cuh"
#include "kernels/cuda/paged_attention_piece.cuh"

namespace catserve::cuda {
namespace {

template <class Layout, int kGroup>
void LaunchDecode(const PagedAttentionArgs& args, const AttentionLaunch& launch, Stream stream) {
  if (launch.split_warps == 1) {
    Launch(PagedAttentionDecode<Layout, kGroup, 1>,
           DecodeShape<kGroup, 1>(launch.items, args.heads), args, stream);
  } else {
    Launch(PagedAttentionDecode<Layout, kGroup, 8>,
           DecodeShape<kGroup, 8>(launch.items, args.heads), args, stream);
  }
}

template <class Layout>
void LaunchGroups(const PagedAttentionArgs& args, const AttentionLaunch& launch, Stream stream) {
  if (launch.group == 1) return LaunchDecode<Layout, 1>(args, launch, stream);
  if (launch.group == 2) return LaunchDecode<Layout, 2>(args, launch, stream);
  LaunchDecode<Layout, 4>(args, launch, stream);
}

template <typename KV>
void LaunchAnySize(const PagedAttentionArgs& args, const AttentionLaunch& launch, Stream stream) {
  if (args.kv.head_dim % 8 == 0) {
    LaunchDecode<TileLayout<KV, 256, false>, 1>(args, launch, stream);
  } else {
    LaunchDecode<NarrowLayout<KV>, 1>(args, launch, stream);
  }
}

template <typename KV>
void LaunchTuned(const PagedAttentionArgs& args, const AttentionLaunch& launch, Stream stream) {
  if (args.kv.head_dim == 64) {
    return LaunchGroups<TileLayout<KV, 64, true>>(args, launch, stream);
  }
  if (args.kv.head_dim == 128) {
    return LaunchGroups<TileLayout<KV, 128, true>>(args, launch, stream);
  }
  LaunchAnySize<KV>(args, launch, stream);
}

template <typename KV>
void LaunchPieces(const PagedAttentionArgs& args, const AttentionLaunch& launch, Stream stream) {
  if (launch.pieces == 0) return;
  const auto kernel =
      args.kv.head_dim == 64 ? PagedAttentionPiece<KV, 64> : PagedAttentionPiece<KV, 128>;
  Launch(kernel, PieceShape(launch.pieces, args.kv.kv_heads), args, stream);
}

// Rows and pieces of 16 bits or less.
template <typename KV>
void LaunchNarrow(const PagedAttentionArgs& args, const AttentionLaunch& launch, Stream stream) {
  if (launch.items > 0) LaunchTuned<KV>(args, launch, stream);
  LaunchPieces<KV>(args, launch, stream);
}

}  // namespace

void LaunchPagedAttention(const PagedAttentionArgs& args, const AttentionLaunch& launch,
                          Stream stream) {
  if (launch.kv == DType::kBF16) {
    LaunchNarrow<BF16>(args, launch, stream);
  } else if (launch.kv == DType::kI8) {
    LaunchNarrow<I8>(args, launch, stream);
  } else if (launch.kv == DType::kE4M3) {
    LaunchNarrow<E4M3>(args, launch, stream);
  } else if (launch.items > 0) {
    LaunchAnySize<float>(args, launch, stream);
  }
  if (launch.combines == 0) return;
  Launch(AttentionCombine, CombineShape(launch.combines, args.heads), args, stream);
}

}  // namespace catserve::cuda

// Launches of paged attention for rows: by the type of KV memory, the size of heads, how many of
// them share a warp and how many warps share a row. Sizes of heads that are not tuned, and F32,
// have one head to a warp (HeadsPerWarp).
#include "kernels/cuda/attention_combine.cuh"
#include "kernels/cuda/paged_attention_decode.cuh"

namespace catserve::cuda {
namespace {

template <class Layout, int kGroup>
void LaunchDecode(const PagedAttentionArgs& args, const DecodeLaunch& launch, Stream stream) {
  if (launch.split_warps == 1) {
    Launch(PagedAttentionDecode<float, Layout, kGroup, 1>,
           DecodeShape<kGroup, 1>(launch.items, args.heads), args, stream);
  } else {
    Launch(PagedAttentionDecode<float, Layout, kGroup, 8>,
           DecodeShape<kGroup, 8>(launch.items, args.heads), args, stream);
  }
}

template <class Layout>
void LaunchGroups(const PagedAttentionArgs& args, const DecodeLaunch& launch, Stream stream) {
  if (launch.group == 1) return LaunchDecode<Layout, 1>(args, launch, stream);
  if (launch.group == 2) return LaunchDecode<Layout, 2>(args, launch, stream);
  LaunchDecode<Layout, 4>(args, launch, stream);
}

template <typename KV>
void LaunchAnySize(const PagedAttentionArgs& args, const DecodeLaunch& launch, Stream stream) {
  if (args.kv.head_dim % 8 == 0) {
    LaunchDecode<TileLayout<KV, 256, false>, 1>(args, launch, stream);
  } else {
    LaunchDecode<NarrowLayout<KV>, 1>(args, launch, stream);
  }
}

template <typename KV>
void LaunchTuned(const PagedAttentionArgs& args, const DecodeLaunch& launch, Stream stream) {
  if (args.kv.head_dim == 64) {
    return LaunchGroups<TileLayout<KV, 64, true>>(args, launch, stream);
  }
  if (args.kv.head_dim == 128) {
    return LaunchGroups<TileLayout<KV, 128, true>>(args, launch, stream);
  }
  LaunchAnySize<KV>(args, launch, stream);
}

}  // namespace

void LaunchPagedAttention(const PagedAttentionArgs& args, const DecodeLaunch& launch,
                          Stream stream) {
  if (launch.items == 0) return;
  if (launch.kv == DType::kBF16) {
    LaunchTuned<BF16>(args, launch, stream);
  } else if (launch.kv == DType::kI8) {
    LaunchTuned<I8>(args, launch, stream);
  } else {
    LaunchAnySize<float>(args, launch, stream);
  }
  if (launch.combines == 0) return;
  Launch(AttentionCombine<float>, CombineShape(launch.combines, args.heads), args, stream);
}

}  // namespace catserve::cuda

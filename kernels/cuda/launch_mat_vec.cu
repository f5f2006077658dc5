// Launches of the product with few rows: by the types of both and the number of rows.
#include "kernels/cuda/mat_vec.cuh"

namespace catserve::cuda {
namespace {

template <typename X, typename W, int kRows>
void LaunchFor(const MatVecArgs& args, Stream stream) {
  Launch(MatVec<X, W, kRows>, MatVecShape<kRows>(args), args, stream);
}

template <typename X, typename W>
void LaunchFor(const MatVecArgs& args, Stream stream) {
  if (args.rows == 1) return LaunchFor<X, W, 1>(args, stream);
  if (args.rows == 2) return LaunchFor<X, W, 2>(args, stream);
  if (args.rows <= 4) return LaunchFor<X, W, 4>(args, stream);
  LaunchFor<X, W, kMatVecRowsMax>(args, stream);
}

void LaunchF32(const MatVecArgs& args, DType weights, Stream stream) {
  if (weights == DType::kF32) return LaunchFor<float, float>(args, stream);
  if (weights == DType::kBF16) return LaunchFor<float, BF16>(args, stream);
  if (weights == DType::kF16) return LaunchFor<float, F16>(args, stream);
  LaunchFor<float, I8>(args, stream);
}

}  // namespace

void LaunchMatVec(const MatVecArgs& args, const MatVecTypes& types, Stream stream) {
  if (args.rows == 0 || args.out_features == 0) return;
  if (types.x == DType::kF32) return LaunchF32(args, types.weights, stream);
  if (types.weights == DType::kBF16) return LaunchFor<BF16, BF16>(args, stream);
  if (types.weights == DType::kE4M3) return LaunchFor<BF16, E4M3>(args, stream);
  LaunchFor<F16, F16>(args, stream);
}

}  // namespace catserve::cuda
